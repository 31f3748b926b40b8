#include "src/common/kube/client.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/fakes/fake_http_transport.h"

namespace dormouse::kube {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::HasSubstr;

const ResourceType kSandboxes{"dormouse.dev", "v1alpha1", "sandboxes"};
const ObjectKey kKey{"ns", "web"};

std::string Object(const std::string& uid, const std::string& version,
                   const json& finalizers = nullptr) {
  json object{{"metadata",
               {{"namespace", "ns"}, {"name", "web"}, {"uid", uid}, {"resourceVersion", version}}}};
  if (finalizers.is_array()) object["metadata"]["finalizers"] = finalizers;
  return object.dump();
}
std::string Status(int code, const std::string& reason, const std::string& message) {
  return json{{"kind", "Status"}, {"code", code}, {"reason", reason}, {"message", message}}.dump();
}

class ClientTest : public testing::Test {
 protected:
  std::shared_ptr<FakeHttpTransport> transport_ = std::make_shared<FakeHttpTransport>();
  Client client_{transport_, {.field_manager = "dormouse-agent"}};
  HttpRequest Last() { return transport_->Seen().back(); }
};

TEST_F(ClientTest, ErrorsSayWhatAQueueShallDo) {
  const std::tuple<int, std::string, ErrorCode> cases[] = {
      {400, "BadRequest", ErrorCode::kInvalid},
      {401, "Unauthorized", ErrorCode::kPermission},
      {403, "Forbidden", ErrorCode::kPermission},
      {404, "NotFound", ErrorCode::kNotFound},
      {409, "Conflict", ErrorCode::kConflict},
      {409, "AlreadyExists", ErrorCode::kAlreadyExists},
      {422, "Invalid", ErrorCode::kInvalid},
      {429, "TooManyRequests", ErrorCode::kUnavailable},
      {500, "InternalError", ErrorCode::kUnavailable},
      {504, "Timeout", ErrorCode::kDeadline},
  };
  for (const auto& [status, reason, code] : cases) {
    transport_->Push({.status = status, .body = Status(status, reason, "the server's words")});
    const auto result = client_.Get(kSandboxes, kKey);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), code) << status << reason;
    EXPECT_THAT(result.error().message(), HasSubstr("get sandboxes ns/web: "));
    EXPECT_THAT(result.error().message(), HasSubstr("the server's words"));
  }
}

TEST_F(ClientTest, RetryAfterReachesTheQueue) {
  transport_->Push({.status = 429, .body = "", .retry_after = 8s});
  EXPECT_EQ(client_.Get(kSandboxes, kKey).error().retry_after(), 8s);
}

TEST_F(ClientTest, AStatusIsAppliedByForceAndOnlyToTheVersionThatWasSeen) {
  transport_->Push({.body = Object("u", "8")});
  ASSERT_TRUE(client_.Apply(kSandboxes, kKey,
                            R"({"apiVersion":"dormouse.dev/v1alpha1","kind":"Sandbox",
    "metadata":{"name":"web"},"status":{"phase":"Running"}})",
                            {.subresource = "status", .resource_version = ResourceVersion("7")}));
  EXPECT_EQ(Last().method, "PATCH");
  EXPECT_EQ(Last().content_type, "application/apply-patch+yaml");
  EXPECT_EQ(Last().target,
            "/apis/dormouse.dev/v1alpha1/namespaces/ns/sandboxes/web/status"
            "?fieldManager=dormouse-agent&fieldValidation=Strict&force=true");
  EXPECT_EQ(json::parse(Last().body)["metadata"]["resourceVersion"], "7");
}

TEST_F(ClientTest, DeletesOnlyTheOneThatWasMeant) {
  transport_->Push({.body = "{}"});
  ASSERT_TRUE(client_.Delete(kSandboxes, kKey, {.uid = "u1", .propagation = "Foreground"}));
  const json body = json::parse(Last().body);
  EXPECT_EQ(body["preconditions"]["uid"], "u1");
  EXPECT_EQ(body["propagationPolicy"], "Foreground");
}

TEST_F(ClientTest, NamesCannotEscapeTheirPlaceInThePath) {
  transport_->Push({.body = "{}"});
  (void)client_.Get(kSandboxes, {"ns", "../../secrets?x=y"});
  EXPECT_EQ(Last().target,
            "/apis/dormouse.dev/v1alpha1/namespaces/ns/sandboxes/..%2F..%2Fsecrets%3Fx%3Dy");
}

TEST_F(ClientTest, AFailedTestIsAConflict) {
  transport_->Push(
      {.status = 422,
       .body = Status(422, "Invalid",
                      "the server rejected our request due to an error in our request")});
  EXPECT_EQ(client_.JsonPatch(kSandboxes, kKey, R"([{"op":"test","path":"/a","value":1}])")
                .error()
                .code(),
            ErrorCode::kConflict);
}

TEST(ClientLimitTest, OurOwnRateIsLimited) {
  FakeClock clock;
  FakeWaiter waiter(clock);
  auto transport = std::make_shared<FakeHttpTransport>();
  transport->Serve([](const HttpRequest&) -> FakeHttpTransport::Answer { return {.body = "{}"}; });
  Client client(transport,
                {.requests_per_second = 5, .burst = 10, .clock = &clock, .waiter = &waiter});
  for (int i = 0; i < 10; ++i) (void)client.Get(kSandboxes, kKey);
  EXPECT_TRUE(waiter.Waits().empty());
  const auto start = clock.Now();
  for (int i = 0; i < 10; ++i) (void)client.Get(kSandboxes, kKey);
  EXPECT_NEAR(std::chrono::duration<double>(clock.Now() - start).count(), 2.0, 0.01);
}

TEST(ResourceTypeTest, PathsAreTheApiServers) {
  EXPECT_EQ(types::kNodes.Path("ignored", "n1", "status"), "/api/v1/nodes/n1/status");
  EXPECT_EQ(types::kLeases.Path("", ""), "/apis/coordination.k8s.io/v1/leases");
  EXPECT_EQ(types::kNodes.ApiVersion(), "v1");
}

}  // namespace
}  // namespace dormouse::kube
