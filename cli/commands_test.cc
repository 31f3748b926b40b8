#include "cli/commands.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "tests/fakes/fake_http_transport.h"

namespace dormouse::cli {
namespace {

using namespace std::chrono_literals;
using kube::FakeHttpTransport;
using nlohmann::json;
using testing::HasSubstr;

json Sandbox(const char* name, const char* mode, json status = json::object()) {
  return {{"kind", "Sandbox"},
          {"metadata",
           {{"namespace", "ns"},
            {"name", name},
            {"uid", "8a5f0000-1"},
            {"resourceVersion", "7"},
            {"generation", 2}}},
          {"spec", {{"source", {{"image", {{"name", "debian-12"}}}}}, {"operatingMode", mode}}},
          {"status", std::move(status)}};
}
FakeHttpTransport::Answer Refusal(int status, const char* reason) {
  return {
      .status = status,
      .body =
          json{{"kind", "Status"}, {"reason", reason}, {"message", "the server's words"}}.dump()};
}

class CommandsTest : public testing::Test {
 protected:
  CommandsTest() { options_.ns = "ns"; }
  ~CommandsTest() override {
    std::fclose(out_);
    std::fclose(err_);
  }
  int RunIt() { return cli::Run(options_, transport_, {::fileno(out_), ::fileno(err_)}); }
  static std::string Text(std::FILE* file) {
    std::string text(65536, '\0');
    const ssize_t size = ::pread(::fileno(file), text.data(), text.size(), 0);
    return text.substr(0, size > 0 ? static_cast<std::size_t>(size) : 0);
  }
  std::string Out() { return Text(out_); }
  std::string Err() { return Text(err_); }

  std::shared_ptr<FakeHttpTransport> transport_ = std::make_shared<FakeHttpTransport>();
  Options options_;
  std::FILE* out_ = std::tmpfile();
  std::FILE* err_ = std::tmpfile();
};

TEST_F(CommandsTest, ASuspendPatchesTheModeAndNothingElse) {
  options_.sandboxes = {"s1"};
  transport_->Push({.body = Sandbox("s1", "Suspended").dump()});
  EXPECT_EQ(RunIt(), kExitDone);
  const kube::HttpRequest sent = transport_->Seen().at(0);
  EXPECT_EQ(sent.method, "PATCH");
  EXPECT_EQ(sent.content_type, "application/merge-patch+json");
  EXPECT_EQ(sent.target,
            "/apis/dormouse.dev/v1alpha1/namespaces/ns/sandboxes/s1?fieldManager=kubectl-dormouse");
  EXPECT_EQ(sent.body, R"({"spec":{"operatingMode":"Suspended"}})");
  EXPECT_EQ(Out(), "sandbox.dormouse.dev/s1 told to suspend\n");
  EXPECT_EQ(Err(), "");
}

TEST_F(CommandsTest, OneThatIsNotThereDoesNotKeepTheOthersFromTheirs) {
  options_.verb = Verb::kResume;
  options_.sandboxes = {"s1", "s2"};
  transport_->Push(Refusal(404, "NotFound"));
  transport_->Push({.body = Sandbox("s2", "Running").dump()});
  EXPECT_EQ(RunIt(), kExitFailed);
  EXPECT_EQ(Out(), "sandbox.dormouse.dev/s2 told to resume\n");
  EXPECT_THAT(Err(), HasSubstr("error: there is no sandbox \"s1\" in namespace \"ns\": "));
  EXPECT_THAT(Err(), HasSubstr("the server's words"));
}

TEST_F(CommandsTest, EachIsWaitedForAndTheWorstIsTheExitCode) {
  options_.sandboxes = {"good", "bad"};
  options_.wait = true;
  const json failed{{"type", "Suspended"},
                    {"status", "False"},
                    {"reason", "SnapshotFailed"},
                    {"message", "ENOSPC"},
                    {"observedGeneration", 2}};
  transport_->Serve([&](const kube::HttpRequest& request) -> FakeHttpTransport::Answer {
    if (request.target.find("/good") != std::string::npos) {
      return {.body =
                  Sandbox("good", "Suspended", {{"phase", "Suspended"}, {"observedGeneration", 2}})
                      .dump()};
    }
    return {.body =
                Sandbox("bad", "Suspended",
                        {{"phase", "Running"}, {"observedGeneration", 2}, {"conditions", {failed}}})
                    .dump()};
  });
  EXPECT_EQ(RunIt(), kExitFailed);
  EXPECT_EQ(Out(), "sandbox.dormouse.dev/good suspended\n");
  EXPECT_THAT(Err(), HasSubstr("good  Suspended  0.0s\n"));
  EXPECT_THAT(Err(), HasSubstr("error: sandbox.dormouse.dev/bad: SnapshotFailed: ENOSPC\n"));
}

TEST_F(CommandsTest, TimeThatIsUpSaysHowItStands) {
  options_.verb = Verb::kResume;
  options_.sandboxes = {"s1"};
  options_.wait = true;
  options_.timeout = 50ms;
  const json full{{"type", "Ready"},
                  {"status", "False"},
                  {"reason", "NoCapacity"},
                  {"message", "no room"},
                  {"observedGeneration", 2}};
  transport_->Serve([&](const kube::HttpRequest& request) -> FakeHttpTransport::Answer {
    if (request.target.find("watch=true") != std::string::npos) return {.status = 503};
    return {.body =
                Sandbox("s1", "Running",
                        {{"phase", "Suspended"}, {"observedGeneration", 2}, {"conditions", {full}}})
                    .dump()};
  });
  EXPECT_EQ(RunIt(), kExitTimedOut);
  EXPECT_THAT(Err(), HasSubstr("error: sandbox.dormouse.dev/s1 is not running after 0.0s, but "
                               "Suspended: NoCapacity: no room\n"));
}

TEST_F(CommandsTest, ASnapshotNamesItsSourceWhichMustBeThere) {
  options_.verb = Verb::kSnapshot;
  options_.sandboxes = {"s1"};
  options_.snapshot_template = "t1";
  transport_->Push(Refusal(404, "NotFound"));
  EXPECT_EQ(RunIt(), kExitFailed);
  EXPECT_THAT(Err(), HasSubstr("error: there is no sandbox \"s1\" in namespace \"ns\""));
  transport_->Push({.body = Sandbox("s1", "Running").dump()});
  transport_->Push(
      {.status = 201, .body = R"({"metadata":{"name":"t1","namespace":"ns","uid":"u"}})"});
  EXPECT_EQ(RunIt(), kExitDone);
  const json sent = json::parse(transport_->Seen().back().body);
  EXPECT_EQ(sent["kind"], "SnapshotTemplate");
  EXPECT_EQ(sent["metadata"]["name"], "t1");
  EXPECT_EQ(sent["spec"], (json{{"source", {{"sandbox", {{"name", "s1"}}}}}}));
  EXPECT_EQ(Out(), "snapshottemplate.dormouse.dev/t1 created\n");
}

TEST_F(CommandsTest, AClonesTemplateMustBeThereAndItsNameMustBeFree) {
  options_.verb = Verb::kClone;
  options_.sandboxes = {"a", "b"};
  options_.snapshot_template = "t1";
  transport_->Push(Refusal(404, "NotFound"));
  EXPECT_EQ(RunIt(), kExitFailed);
  EXPECT_EQ(transport_->Seen().size(), 1U);
  EXPECT_THAT(Err(), HasSubstr("error: there is no template \"t1\" in namespace \"ns\""));
  transport_->Push({.body = "{}"});
  transport_->Push(Refusal(409, "AlreadyExists"));
  transport_->Push({.status = 201, .body = Sandbox("b", "Running").dump()});
  EXPECT_EQ(RunIt(), kExitFailed);
  EXPECT_THAT(Err(), HasSubstr("error: there is a sandbox \"a\" in namespace \"ns\" already"));
  EXPECT_EQ(Out(), "sandbox.dormouse.dev/b created\n");
  const json sent = json::parse(transport_->Seen().back().body);
  EXPECT_EQ(sent["spec"], (json{{"source", {{"snapshotTemplate", {{"name", "t1"}}}}}}));
}

}  // namespace
}  // namespace dormouse::cli
