#include "controller/nodes/node_controller.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace dormouse::controller {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

class NodeControllerTest : public testing::Test {
 protected:
  template <typename T>
  void Put(kube::Store<T>& store, const kube::ObjectKey& key, T object,
           const std::string& uid = "u") {
    store.Upsert({key, uid, kube::ResourceVersion(std::to_string(++version_))},
                 std::make_shared<const T>(std::move(object)), false);
  }
  void PutNode(std::map<std::string, std::string> labels = {},
               std::vector<kube::OwnerReference> owners = {}) {
    api::SandboxNode node;
    node.meta.name = "n";
    node.meta.uid = "sandbox-node";
    node.meta.labels = std::move(labels);
    node.meta.owners = std::move(owners);
    api::SetCondition(&node.status.conditions,
                      {"Ready", api::ConditionStatus::kTrue, "Ready", "", 1, {}}, {});
    Put(nodes_, {"", "n"}, node);
  }
  void Renew() {
    kube::LeaseRecord lease;
    lease.ref.key = {"system", NodeLeaseName("n")};
    lease.ref.resource_version = kube::ResourceVersion(std::to_string(version_ + 1));
    lease.renewed = clock_.WallNow();
    Put(leases_, lease.ref.key, lease);
  }
  void PutSandbox(const std::string& node) {
    api::Sandbox sandbox;
    sandbox.meta.ns = "team";
    sandbox.meta.name = "web";
    sandbox.status.node_name = node;
    Put(sandboxes_, {"team", "web"}, sandbox);
  }
  std::vector<std::string> Queued(kube::WorkQueue& queue) {
    std::vector<std::string> keys;
    while (const auto key = queue.TryGet()) {
      keys.push_back(*key);
      queue.Done(*key);
    }
    return keys;
  }
  kube::WorkQueueOptions QueueOptions(const char* name) {
    kube::WorkQueueOptions options;
    options.name = name;
    options.clock = &clock_;
    options.metrics = &metrics_;
    return options;
  }

  FakeClock clock_;
  metrics::Registry metrics_;
  SandboxNodeStore nodes_;
  KubernetesNodeStore kubernetes_nodes_;
  LeaseStore leases_;
  SandboxStore sandboxes_;
  kube::WorkQueue node_queue_{QueueOptions("node")}, sandbox_queue_{QueueOptions("sandbox")};
  Scheduler scheduler_{[this](const kube::ObjectKey& key) { return sandboxes_.Get(key); },
                       [](const std::string&, const std::string&) { return nullptr; },
                       clock_,
                       {60s}};
  NodeHealth health_{clock_, 40s};
  int version_ = 0;
  int applied_ = 0;
  std::vector<std::string> lost_;  ///< told so, and by which version of the Lease
  std::optional<ErrorCode> fail_next_;
  NodeController controller_{{nodes_, kubernetes_nodes_, leases_, sandboxes_, scheduler_, health_,
                              node_queue_, sandbox_queue_},
                             "system",
                             [this](const auto&, const auto&) -> Result<> {
                               if (fail_next_)
                                 return Fail(*std::exchange(fail_next_, std::nullopt), "asked to");
                               ++applied_;
                               return {};
                             },
                             [this](const auto& node, const auto& lease) -> Result<> {
                               lost_.push_back(node.meta.name + " " + lease.text());
                               return {};
                             }};
};

TEST_F(NodeControllerTest, TheSandboxesOfALostNodeAreLookedAt) {
  sandboxes_.AddIndex(kByNode, [](const api::Sandbox& sandbox) {
    return std::vector<std::string>{sandbox.status.node_name};
  });
  PutNode();
  PutSandbox("n");
  Renew();
  const auto alive = controller_.Reconcile("n");
  ASSERT_TRUE(alive && alive->requeue_after());
  EXPECT_GT(*alive->requeue_after(), 39s) << "looked at again when its Lease would end";
  Queued(sandbox_queue_);
  clock_.Advance(41s);
  ASSERT_TRUE(controller_.Reconcile("n"));
  EXPECT_EQ(Queued(sandbox_queue_), (std::vector<std::string>{kRetryKey, "team/web"}));
  ASSERT_TRUE(controller_.Reconcile("n"));
  EXPECT_EQ(Queued(sandbox_queue_), std::vector<std::string>{}) << "told once";
}

TEST_F(NodeControllerTest, ANodeWhoseAgentIsSilentIsNotReady) {
  PutNode();
  Renew();
  ASSERT_TRUE(controller_.Reconcile("n"));
  EXPECT_EQ(lost_, std::vector<std::string>{});
  clock_.Advance(41s);
  ASSERT_TRUE(controller_.Reconcile("n"));
  EXPECT_EQ(lost_, (std::vector<std::string>{"n 2"}));
  api::SandboxNode node = *nodes_.Get({"", "n"});
  node.status.conditions = NodeLostConditions(node, clock_.WallNow());
  EXPECT_EQ(node.status.conditions.at(0).status, api::ConditionStatus::kUnknown);
  EXPECT_EQ(node.status.conditions.at(0).reason, "NodeLost");
  Put(nodes_, {"", "n"}, node);
  ASSERT_TRUE(controller_.Reconcile("n"));
  EXPECT_EQ(lost_.size(), 1U) << "told once";
}

TEST_F(NodeControllerTest, ANodeThatComesBackIsTriedAtOnce) {
  PutNode();
  Renew();
  ASSERT_TRUE(controller_.Reconcile("n"));
  clock_.Advance(41s);
  ASSERT_TRUE(controller_.Reconcile("n"));
  Queued(node_queue_);
  Renew();
  EXPECT_EQ(Queued(node_queue_), (std::vector<std::string>{"n"}));
  Renew();
  EXPECT_EQ(Queued(node_queue_), std::vector<std::string>{})
      << "a renewal of a node that lives is no work";
}

TEST_F(NodeControllerTest, ASandboxOnANodeThatNobodyKnowsIsFollowedToo) {
  PutSandbox("n");
  EXPECT_EQ(Queued(node_queue_), (std::vector<std::string>{"n"}));
}

TEST_F(NodeControllerTest, LabelsAndOwnerAreThoseOfTheKubernetesNode) {
  const KubernetesNode kubernetes{"n", "node-uid", {{"zone", "a"}}};
  PutNode();
  ASSERT_TRUE(controller_.Reconcile("n"));
  EXPECT_EQ(applied_, 0) << "there is no Node";
  Put(kubernetes_nodes_, {"", "n"}, kubernetes);
  fail_next_ = ErrorCode::kUnavailable;
  EXPECT_FALSE(controller_.Reconcile("n"));
  ASSERT_TRUE(controller_.Reconcile("n"));
  EXPECT_EQ(applied_, 1);
  PutNode({{"zone", "a"}}, {{"v1", "Node", "n", "node-uid"}});
  ASSERT_TRUE(controller_.Reconcile("n"));
  EXPECT_EQ(applied_, 1) << "nothing is missing";
  PutNode({}, {{"v1", "Node", "n", "node-uid"}});
  ASSERT_TRUE(controller_.Reconcile("n"));
  EXPECT_EQ(applied_, 2) << "somebody took a label away";
  Put(kubernetes_nodes_, {"", "n"}, KubernetesNode{"n", "node-uid", {}});
  ASSERT_TRUE(controller_.Reconcile("n"));
  EXPECT_EQ(applied_, 3) << "a label is to go";
}

TEST(NodeIdentityTest, TheApplyNamesOnlyWhatIsOurs) {
  api::SandboxNode node;
  node.meta.name = "n";
  node.meta.uid = "u1";
  node.meta.labels = {{"mine", "x"}};
  EXPECT_EQ(json::parse(IdentityApplyBody(node, {"n", "u2", {{"zone", "a"}}})),
            json::parse(R"({"apiVersion": "dormouse.dev/v1alpha1", "kind": "SandboxNode",
              "metadata": {"name": "n", "uid": "u1", "labels": {"zone": "a"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u2"}]}})"));
}

}  // namespace
}  // namespace dormouse::controller
