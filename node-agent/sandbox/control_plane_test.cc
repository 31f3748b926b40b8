#include "node-agent/sandbox/control_plane.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "src/common/api/reasons.h"
#include "tests/fakes/fake_http_transport.h"

namespace dormouse {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const char* const kUndeclared =
    R"({"kind":"Status","status":"Failure","message":"failed to create typed patch object )"
    R"((/x; dormouse.dev/v1alpha1, Kind=Sandbox): .status.storage: field not declared in schema","code":500})";
const char* const kNotInEnum =
    R"({"kind":"Status","status":"Failure","reason":"Invalid","message":"status.phase: Unsupported value","code":422})";
const char* const kBadRequest =
    R"({"kind":"Status","status":"Failure","reason":"BadRequest","message":"strict decoding error","code":400})";

// An API server whose CRD is older than this agent.
class OldApiServer {
 public:
  explicit OldApiServer(int status, std::string refusal) {
    transport_->Serve([this, status, refusal](
                          const kube::HttpRequest& request) -> kube::FakeHttpTransport::Answer {
      const json body = json::parse(request.body);
      if (body["status"].size() != 1 || !accepts_conditions)
        return {.status = status, .body = refusal};
      applied_ = body["status"];
      return {.body = R"({"metadata":{"namespace":"default","name":"x","uid":")" + kUid +
                      R"(","resourceVersion":"8"},"spec":{"source":{"image":{"name":"i"}}}})"};
    });
  }
  Result<std::optional<api::Sandbox>> Write() {
    api::Sandbox sandbox;
    sandbox.meta.ns = "default";
    sandbox.meta.name = "x";
    sandbox.meta.uid = kUid;
    sandbox.meta.resource_version = kube::ResourceVersion("7");
    api::SandboxStatus status;
    status.phase = "Terminating";
    status.observed_generation = 3;
    for (const char* type :
         {api::condition::kReady, api::condition::kGuestReady, api::condition::kReleased}) {
      api::SetCondition(&status.conditions,
                        {type, api::ConditionStatus::kTrue, "Released", "gone", 3, {}}, WallTime{});
    }
    return control_plane_.WriteStatus(sandbox, status);
  }
  [[nodiscard]] size_t requests() const { return transport_->Seen().size(); }
  [[nodiscard]] std::vector<std::string> types() const {
    std::vector<std::string> types;
    for (const json& condition : applied_.value("conditions", json::array()))
      types.push_back(condition["type"]);
    return types;
  }
  bool accepts_conditions = true;

 private:
  const std::string kUid = "0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a11";
  std::shared_ptr<kube::FakeHttpTransport> transport_ = std::make_shared<kube::FakeHttpTransport>();
  kube::Client client_{transport_, {}};
  kube::EventRecorder events_{transport_, {.controller = "test", .instance = "test"}};
  KubeControlPlane control_plane_{client_, events_};
  json applied_;
};

TEST(ControlPlaneTest, AnAgentNewerThanItsCrdStillSaysThatASandboxIsReleased) {
  for (const auto& [status, refusal] :
       {std::pair(500, kUndeclared), std::pair(422, kNotInEnum), std::pair(400, kBadRequest)}) {
    SCOPED_TRACE(refusal);
    OldApiServer server(status, refusal);
    const auto written = server.Write();
    ASSERT_TRUE(written) << written.error().message();
    EXPECT_TRUE(written->has_value());
    EXPECT_THAT(server.types(), testing::ElementsAre("Ready", "Released"));
    EXPECT_EQ(server.requests(), 2U);
  }
}

TEST(ControlPlaneTest, WhatIsRefusedEvenThenIsAnErrorThatIsTriedSlowly) {
  OldApiServer server(422, kNotInEnum);
  server.accepts_conditions = false;
  const auto written = server.Write();
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), ErrorCode::kInvalid);
  EXPECT_THAT(written.error().message(), HasSubstr("Unsupported value"));
  EXPECT_EQ(server.requests(), 2U) << "no busy loop";
}

}  // namespace
}  // namespace dormouse
