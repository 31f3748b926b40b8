#include "node-agent/node/node_publisher.h"

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

namespace dormouse {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr char kPath[] = "/apis/dormouse.dev/v1alpha1/sandboxnodes";

/// An API server that holds one SandboxNode, or none.
class OneNodeServer : public kube::HttpTransport {
 public:
  Result<kube::HttpResponse> Request(const kube::HttpRequest& request,
                                     const std::stop_token&) override {
    const std::string path = request.target.substr(0, request.target.find('?'));
    requests.push_back(request.method + " " + path);
    if (answer_instead) return *answer_instead;
    if (request.method == "POST" && path == kPath) {
      object = json::parse(request.body);
      Stamp();
      return Answer(201);
    }
    if (!object)
      return kube::HttpResponse{
          404, {}, R"({"kind":"Status","reason":"NotFound","message":"not found"})"};
    if (request.method == "PATCH" && path == std::string(kPath) + "/n1/status") {
      targets.push_back(request.target);
      (*object)["status"] = json::parse(request.body).at("status");
      ++writes;
      Stamp();
    }
    return Answer(200);
  }
  Result<kube::HttpResponse> Stream(const kube::StreamRequest&, const kube::StreamSink&,
                                    const std::stop_token&) override {
    return Fail(ErrorCode::kUnsupported, "no streams here");
  }

  std::optional<json> object;
  std::optional<kube::HttpResponse> answer_instead;
  std::vector<std::string> requests, targets;
  int writes = 0;

 private:
  void Stamp() {
    (*object)["metadata"]["uid"] = "0b0e6b1c-0000-4000-8000-000000000001";
    (*object)["metadata"]["resourceVersion"] = std::to_string(++version_);
  }
  Result<kube::HttpResponse> Answer(int status) {
    return kube::HttpResponse{status, {}, object->dump()};
  }
  int version_ = 0;
};

class NodePublisherTest : public testing::Test {
 protected:
  NodePublisherTest() {
    seen.hypervisor = vmm::VmmVersion{53, 0, "v53.0"};
    seen.space = {100ULL << 30, 90ULL << 30};
    seen.images = {{"debian-12", std::string(64, 'a'), 1 << 30}};
  }

  std::unique_ptr<NodePublisher> Publisher() {
    NodePublisherOptions options{.name = NodeName::Parse("n1").value(),
                                 .facts = {.cpus = 2,
                                           .memory_bytes = 4LL << 30,
                                           .cpu_model = "cpu",
                                           .kernel_version = "6.1",
                                           .file_system = "xfs",
                                           .reflink = true,
                                           .kvm = true},
                                 .allowance = {},
                                 .endpoint = "10.0.0.1:8443",
                                 .lease_beginnings = [this] { return beginnings; },
                                 .clock = &clock};
    return std::make_unique<NodePublisher>(client, options, [this] { return seen; });
  }

  FakeClock clock;
  std::shared_ptr<OneNodeServer> server = std::make_shared<OneNodeServer>();
  kube::Client client{server, {.field_manager = "dormouse-agent", .clock = &clock}};
  NodeObservation seen;
  uint64_t beginnings = 0;
};

TEST_F(NodePublisherTest, WhatTheControllerSaidOfASilentAgentIsTakenBackOnceTheLeaseIsRenewed) {
  auto publisher = Publisher();
  publisher->Tick();
  json& ready = (*server->object)["status"]["conditions"][0];
  ASSERT_EQ(ready["type"], "Ready");
  ready["status"] = "Unknown";
  ready["reason"] = "NodeLost";
  clock.Advance(seconds(5));
  publisher->Tick();
  EXPECT_EQ((*server->object)["status"]["conditions"][0]["status"], "Unknown")
      << "nobody told it; it looks each five minutes";
  ++beginnings;
  clock.Advance(seconds(5));
  publisher->Tick();
  EXPECT_EQ((*server->object)["status"]["conditions"][0]["status"], "True");
}

TEST_F(NodePublisherTest, AMissingObjectIsMadeAndItsStatusWritten) {
  auto publisher = Publisher();
  publisher->Tick();
  ASSERT_TRUE(server->object.has_value());
  EXPECT_EQ((*server->object)["metadata"]["name"], "n1");
  EXPECT_FALSE(server->object->contains("spec")) << "the spec is people's";
  const json& status = (*server->object)["status"];
  EXPECT_EQ(status["images"][0]["name"], "debian-12");
  EXPECT_EQ(status["hypervisor"]["version"], "53.0");
  ASSERT_EQ(server->targets.size(), 1U);
  EXPECT_NE(server->targets[0].find("fieldManager=dormouse-agent"), std::string::npos)
      << server->targets[0];
}

TEST_F(NodePublisherTest, NothingIsWrittenWhileNothingChanges) {
  auto publisher = Publisher();
  publisher->Tick();
  const size_t requests = server->requests.size();
  for (int i = 0; i < 20; ++i) {
    clock.Advance(seconds(5));
    publisher->Tick();
  }
  EXPECT_EQ(server->requests.size(), requests);
}

TEST_F(NodePublisherTest, ARestartedAgentWritesNothingThatIsThere) {
  Publisher()->Tick();
  clock.Advance(seconds(100));
  auto second = Publisher();
  EXPECT_EQ(second->Tick(), seconds(5));
  EXPECT_EQ(server->writes, 1);
}

TEST_F(NodePublisherTest, ChangesAreWrittenButNotFasterThanTheSpacing) {
  auto publisher = Publisher();
  publisher->Tick();
  seen.images.push_back({"ubuntu", "", 1});
  EXPECT_EQ(publisher->Tick(), milliseconds(2'000));
  EXPECT_EQ(server->writes, 1);
  clock.Advance(seconds(2));
  publisher->Tick();
  EXPECT_EQ(server->writes, 2);
  EXPECT_EQ((*server->object)["status"]["images"].size(), 2U);
}

TEST_F(NodePublisherTest, DiskAmountsAloneWaitForTheirTurn) {
  auto publisher = Publisher();
  publisher->Tick();
  seen.space.available_bytes -= 20ULL << 30;
  clock.Advance(seconds(59));
  publisher->Tick();
  EXPECT_EQ(server->writes, 1);
  clock.Advance(seconds(1));
  publisher->Tick();
  EXPECT_EQ(server->writes, 2);
}

TEST_F(NodePublisherTest, AnObjectThatSomebodyDeletedComesBack) {
  auto publisher = Publisher();
  publisher->Tick();
  server->object.reset();
  clock.Advance(std::chrono::minutes(5));
  publisher->Tick();
  ASSERT_TRUE(server->object.has_value());
  EXPECT_TRUE(server->object->contains("status"));

  server->object.reset();  // and when a write finds it gone
  seen.images.clear();
  clock.Advance(seconds(3));
  EXPECT_EQ(publisher->Tick(), seconds(1)) << "it failed, and is tried again soon";
  clock.Advance(seconds(2));
  EXPECT_EQ(publisher->Tick(), seconds(5));
  ASSERT_TRUE(server->object.has_value());
  EXPECT_TRUE((*server->object)["status"]["images"].empty());
}

TEST_F(NodePublisherTest, AServerThatRefusesIsAskedEverMoreSeldom) {
  auto publisher = Publisher();
  server->answer_instead = kube::HttpResponse{503, {}, ""};
  EXPECT_EQ(publisher->Tick(), seconds(1));
  EXPECT_EQ(publisher->Tick(), seconds(2));
  for (int i = 0; i < 10; ++i) (void)publisher->Tick();
  EXPECT_EQ(publisher->Tick(), seconds(30));

  server->answer_instead = kube::HttpResponse{429, seconds(45), ""};
  EXPECT_EQ(publisher->Tick(), seconds(45)) << "Retry-After";
  server->answer_instead.reset();
  EXPECT_EQ(publisher->Tick(), seconds(5));
}

TEST_F(NodePublisherTest, ItsThreadPublishesAndStops) {
  auto publisher = Publisher();
  publisher->Start();
  publisher->Stop();
  EXPECT_LE(server->writes, 1);
}

TEST(NodeLeaseTest, TheLeaseIsNamedAfterTheNode) {
  const auto options = NodeLeaseOptions(NodeName::Parse("n1").value(), "dormouse-system");
  EXPECT_EQ(options.lease.ns, "dormouse-system");
  EXPECT_EQ(options.lease.name, "dormouse-node-n1");
  EXPECT_EQ(options.holder, "n1");
  EXPECT_EQ(options.duration, milliseconds(40'000));
  EXPECT_EQ(options.period, milliseconds(10'000));
}

}  // namespace
}  // namespace dormouse
