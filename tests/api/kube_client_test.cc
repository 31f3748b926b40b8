// The Kubernetes client against a real kube-apiserver: $KUBECONFIG names one that has Dormouse's
// chart and lets us do everything. What it makes is deleted again.

#include <gmock/gmock.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <nlohmann/json.hpp>

#include "src/common/kube/client.h"
#include "src/common/kube/cluster_config.h"
#include "src/common/kube/cpprest_transport.h"
#include "src/common/kube/events.h"
#include "src/common/kube/lease.h"
#include "src/common/kube/reflector.h"

namespace dormouse::kube {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using testing::HasSubstr;

const ResourceType kSandboxes{"dormouse.dev", "v1alpha1", "sandboxes"};
const ResourceType kConfigMaps{"", "v1", "configmaps"};
constexpr char kNamespace[] = "default";

class KubeClientTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { InitialiseProcess(4); }

  void SetUp() override {
    if (std::getenv("KUBECONFIG") == nullptr) GTEST_SKIP() << "needs an API server in $KUBECONFIG";
    auto config = LoadClusterConfig("");
    ASSERT_TRUE(config) << config.error().message();
    config_ = *config;
    auto transport = MakeTransport(config_);
    ASSERT_TRUE(transport) << transport.error().message();
    transport_ = *transport;
    client_.emplace(transport_, ClientOptions{.field_manager = "kube-client-test"});
  }

  void TearDown() override {
    for (const auto& [type, key] : made_) {
      (void)client_->JsonPatch(type, key, R"([{"op":"remove","path":"/metadata/finalizers"}])");
      (void)client_->Delete(type, key);
    }
  }

  /// A name that no other run has used.
  ObjectKey Name(const std::string& what) {
    static int count = 0;
    return {kNamespace,
            "kct-" + what + "-" + std::to_string(::getpid()) + "-" + std::to_string(++count)};
  }

  ObjectRef MakeSandbox(const ObjectKey& key, const std::string& image = "debian-12") {
    const json object{{"apiVersion", "dormouse.dev/v1alpha1"},
                      {"kind", "Sandbox"},
                      {"metadata", {{"name", key.name}}},
                      {"spec", {{"source", {{"image", {{"name", image}}}}}}}};
    auto made = client_->Create(kSandboxes, key.ns, object.dump());
    EXPECT_TRUE(made) << made.error().message();
    if (!made) return {};
    made_.emplace_back(kSandboxes, key);
    return *RefOfText(*made);
  }

  Result<ObjectRef> ApplyStatus(const ObjectKey& key, const json& status,
                                const ResourceVersion& version = {}) {
    const json object{{"apiVersion", "dormouse.dev/v1alpha1"},
                      {"kind", "Sandbox"},
                      {"metadata", {{"name", key.name}, {"namespace", key.ns}}},
                      {"status", status}};
    DORMOUSE_ASSIGN(const std::string text,
                    client_->Apply(kSandboxes, key, object.dump(),
                                   {.subresource = "status", .resource_version = version}));
    return RefOfText(text);
  }

  /// From here on we are the controller: nobody else may set a nodeName.
  void BecomeTheController() {
    const ResourceType tokens{"", "v1", "serviceaccounts/dormouse-controller/token"};
    const json request{{"apiVersion", "authentication.k8s.io/v1"},
                       {"kind", "TokenRequest"},
                       {"spec", {{"expirationSeconds", 3600}}}};
    const auto made = client_->Create(tokens, "dormouse-system", request.dump());
    ASSERT_TRUE(made) << made.error().message();
    ClusterConfig config = config_;
    config.client_certificate = config.client_key = {};
    config.token_file.clear();
    config.token = json::parse(*made)["status"]["token"];
    const auto transport = MakeTransport(config);
    ASSERT_TRUE(transport) << transport.error().message();
    client_.emplace(*transport, ClientOptions{.field_manager = "kube-client-test"});
  }

  ClusterConfig config_;
  std::shared_ptr<HttpTransport> transport_;
  std::optional<Client> client_;
  std::vector<std::pair<ResourceType, ObjectKey>> made_;
};

TEST_F(KubeClientTest, AnObjectThatIsThereIsNotMadeTwice) {
  const auto key = Name("twice");
  MakeSandbox(key);
  auto again = client_->Create(kSandboxes, kNamespace,
                               *client_->Get(kSandboxes, key).map([](const std::string& text) {
                                 json object = json::parse(text);
                                 object["metadata"].erase("resourceVersion");
                                 return object.dump();
                               }));
  EXPECT_EQ(again.error().code(), ErrorCode::kAlreadyExists);
  EXPECT_EQ(client_->Get(kSandboxes, Name("missing")).error().code(), ErrorCode::kNotFound);
}

TEST_F(KubeClientTest, AFieldThatDoesNotExistIsRefused) {
  const auto made = client_->Create(
      kConfigMaps, kNamespace,
      R"({"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"typo"},"dta":{}})");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), ErrorCode::kInvalid);
  EXPECT_THAT(made.error().message(), HasSubstr("dta"));
}

TEST_F(KubeClientTest, ApplyingTheSameStatusIsNoWrite) {
  const auto key = Name("status");
  MakeSandbox(key);
  const auto first = ApplyStatus(key, {{"phase", "Running"}});
  ASSERT_TRUE(first) << first.error().message();
  const auto second = ApplyStatus(key, {{"phase", "Running"}});
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_EQ(first->resource_version, second->resource_version);
}

TEST_F(KubeClientTest, AStatusDoesNotReachASuccessorOfTheSameName) {
  const auto key = Name("successor");
  const auto old = MakeSandbox(key);
  ASSERT_TRUE(client_->Delete(kSandboxes, key, {.uid = old.uid}));
  MakeSandbox(key);
  const auto late = ApplyStatus(key, {{"phase", "Failed"}}, old.resource_version);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), ErrorCode::kConflict);
  EXPECT_EQ(client_->Delete(kSandboxes, key, {.uid = old.uid}).error().code(),
            ErrorCode::kConflict);
}

TEST_F(KubeClientTest, AStatusOfWhatIsGoneIsNotFound) {
  EXPECT_EQ(ApplyStatus(Name("gone"), {{"phase", "Failed"}}).error().code(), ErrorCode::kNotFound);
}

TEST_F(KubeClientTest, AFailedTestOfAPatchIsAConflict) {
  const auto key = Name("patch");
  MakeSandbox(key);
  const auto patched =
      client_->JsonPatch(kSandboxes, key,
                         R"([{"op":"test","path":"/metadata/uid","value":"another"},
          {"op":"add","path":"/metadata/labels","value":{"a":"b"}}])");
  ASSERT_FALSE(patched);
  EXPECT_EQ(patched.error().code(), ErrorCode::kConflict) << patched.error().message();
}

TEST_F(KubeClientTest, AnotherCaIsRefused) {
  ClusterConfig wrong = config_;
  wrong.ca = {};
  auto transport = MakeTransport(wrong);
  ASSERT_TRUE(transport) << transport.error().message();
  const auto answer = (*transport)->Request({.target = "/version"});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code(), ErrorCode::kPermission) << answer.error().message();
}

TEST_F(KubeClientTest, AServersOtherNameIsChecked) {
  ClusterConfig named = config_;
  named.tls_server_name = "kubernetes.default.svc";
  EXPECT_EQ((*MakeTransport(named))->Request({.target = "/version"})->status, 200);
  named.tls_server_name = "somebody.else";
  const auto answer = (*MakeTransport(named))->Request({.target = "/version"});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code(), ErrorCode::kPermission) << answer.error().message();
}

TEST_F(KubeClientTest, ACompressedListIsTheSameList) {
  const auto key = Name("large");
  json object{{"apiVersion", "v1"},
              {"kind", "ConfigMap"},
              {"metadata", {{"name", key.name}}},
              {"data", {{"text", std::string(300'000, 'x')}}}};
  ASSERT_TRUE(client_->Create(kConfigMaps, kNamespace, object.dump()));
  made_.emplace_back(kConfigMaps, key);
  std::string plain;
  std::string compressed;
  for (std::string* text : {&plain, &compressed}) {
    const auto answer = transport_->Stream(
        {.target = kConfigMaps.Path(kNamespace), .compressed = text == &compressed},
        [text](std::string_view bytes) -> Result<> {
          *text += bytes;
          return {};
        },
        std::stop_token());
    ASSERT_TRUE(answer) << answer.error().message();
  }
  EXPECT_GT(plain.size(), 300'000u);
  EXPECT_EQ(json::parse(plain)["items"], json::parse(compressed)["items"]);
}

/// Waits for what a store's subscriber hears.
class Listener {
 public:
  void Hear(std::string what) {
    std::lock_guard lock(mutex_);
    heard_.push_back(std::move(what));
    changed_.notify_all();
  }
  bool WaitFor(const std::string& what) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(
        lock, 20s, [&] { return std::find(heard_.begin(), heard_.end(), what) != heard_.end(); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> heard_;
};

TEST_F(KubeClientTest, AnAgentSeesItsOwnSandboxesComeChangeAndGo) {
  const auto early = Name("early");
  const auto late = Name("late");
  const std::string node = early.name;
  MakeSandbox(early);
  MakeSandbox(late);
  BecomeTheController();
  ASSERT_TRUE(ApplyStatus(early, {{"nodeName", node}}));

  Store<std::string> store;
  Listener listener;
  store.Subscribe([&](const Store<std::string>::Change& change) {
    listener.Hear((change.after == nullptr    ? "- "
                   : change.before == nullptr ? "+ "
                                              : "~ ") +
                  change.ref.key.name);
  });
  Reflector<std::string> reflector(
      *transport_, {.type = kSandboxes, .field_selector = "status.nodeName=" + node},
      [](const json& object) -> Result<std::string> {
        return object["metadata"]["name"].get<std::string>();
      },
      store);
  reflector.Start();
  ASSERT_TRUE(store.WaitForSync(20s));
  EXPECT_EQ(store.Size(), 1u);

  const auto placed = ApplyStatus(late, {{"nodeName", node}});
  ASSERT_TRUE(placed) << placed.error().message();
  EXPECT_TRUE(listener.WaitFor("+ " + late.name)) << "it enters the selection";
  EXPECT_TRUE(store.HasSeen(placed->resource_version));
  ASSERT_TRUE(ApplyStatus(late, {{"nodeName", node}, {"phase", "Starting"}}));
  EXPECT_TRUE(listener.WaitFor("~ " + late.name));
  ASSERT_TRUE(ApplyStatus(late, {{"phase", "Pending"}}));
  EXPECT_TRUE(listener.WaitFor("- " + late.name)) << "it leaves the selection, and is not deleted";
  EXPECT_TRUE(client_->Get(kSandboxes, late));
  ASSERT_TRUE(client_->Delete(kSandboxes, early));
  EXPECT_TRUE(listener.WaitFor("- " + early.name));
}

TEST_F(KubeClientTest, AFutureVersionIsWaitedForInVain) {
  const auto answer = transport_->Request(
      {.target = kSandboxes.Path(kNamespace) +
                 "?resourceVersion=999999999&resourceVersionMatch=NotOlderThan"});
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->status, 504);
  EXPECT_THAT(answer->body, HasSubstr("Too large resource version"));
}

TEST_F(KubeClientTest, OneLeadsAndHandsOver) {
  const auto key = Name("lease");
  made_.emplace_back(types::kLeases, key);
  LeaderElector first(transport_, {.lease = key, .identity = "first"});
  LeaderElector second(transport_, {.lease = key, .identity = "second"});
  (void)first.Tick();
  (void)second.Tick();
  EXPECT_TRUE(first.IsLeader());
  EXPECT_FALSE(second.IsLeader());
  (void)first.Tick();
  EXPECT_TRUE(first.IsLeader()) << "renewed";
  first.Release();
  (void)second.Tick();
  EXPECT_TRUE(second.IsLeader());
}

TEST_F(KubeClientTest, AHeartbeatKeepsALease) {
  const auto key = Name("beat");
  made_.emplace_back(types::kLeases, key);
  Heartbeat heartbeat(transport_, {.lease = key, .holder = "node-1"});
  ASSERT_TRUE(heartbeat.Beat());
  const auto first = ParseLease(*client_->Get(types::kLeases, key));
  const auto beat = heartbeat.Beat();
  ASSERT_TRUE(beat) << beat.error().message();
  const auto second = ParseLease(*client_->Get(types::kLeases, key));
  EXPECT_GT(*second->renewed, *first->renewed);
  EXPECT_EQ(second->holder, "node-1");
}

TEST_F(KubeClientTest, EventsAreTakenAndRepeatsBecomeASeries) {
  const auto key = Name("events");
  const auto ref = MakeSandbox(key);
  metrics::Registry registry;
  EventRecorder recorder(
      transport_, {.controller = "dormouse.dev/test", .instance = "here", .metrics = &registry});
  const EventSubject subject{"dormouse.dev/v1alpha1", "Sandbox", key.ns, key.name, ref.uid};
  recorder.Record(subject, EventType::kWarning, "VMMCrashed", "Restart", "exit status 1");
  recorder.Record(subject, EventType::kWarning, "VMMCrashed", "Restart", "exit status 1");
  recorder.Flush();
  const auto list = transport_->Request(
      {.target = types::kEvents.Path(kNamespace) + "?fieldSelector=regarding.name%3D" + key.name});
  ASSERT_TRUE(list) << list.error().message();
  const json items = json::parse(list->body)["items"];
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0]["series"]["count"], 2);
  EXPECT_EQ(items[0]["reason"], "VMMCrashed");
  made_.emplace_back(types::kEvents, RefOf(items[0])->key);
}

}  // namespace
}  // namespace dormouse::kube
