#include "controller/placement/placement.h"

#include <gtest/gtest.h>

#include <functional>

#include "src/common/base/units.h"

namespace dormouse::controller {
namespace {

NodeView Node(const std::string& name) {
  NodeView node;
  node.name = name;
  node.ready = true;
  node.images = {{"debian-12", 2 * kGiB}};
  node.capacity = {8, 16 * kGiB, 0, 100 * kGiB};
  return node;
}

Demand Wants(int vcpus = 1, int64_t memory = kGiB) {
  Demand demand;
  demand.amount = {vcpus, memory, 1};
  demand.image = "debian-12";
  return demand;
}

struct FitCase {
  const char* name;
  std::function<void(NodeView*)> node;
  std::function<void(Demand*)> demand;
  const char* reason;
  const char* message;
};

const FitCase kFitCases[] = {
    {"not ready", [](NodeView* n) { n->ready = false; }, {}, "NoNode", "0/1 nodes: 1 not Ready"},
    {"unschedulable",
     [](NodeView* n) { n->unschedulable = true; },
     {},
     "NoNode",
     "0/1 nodes: 1 unschedulable"},
    {"selector",
     {},
     [](Demand* d) {
       d->node_selector = {{"disk", "fast"}};
     },
     "NoNode",
     "0/1 nodes: 1 without label disk=fast"},
    {"taint",
     [](NodeView* n) {
       n->taints = {{"team", "a", "NoSchedule"}};
     },
     {},
     "NoNode",
     "0/1 nodes: 1 with taint team=a:NoSchedule that is not tolerated"},
    {"taint that evicts",
     [](NodeView* n) {
       n->taints = {{"gone", "", "NoExecute"}};
     },
     {},
     "NoNode",
     "0/1 nodes: 1 with taint gone:NoExecute that is not tolerated"},
    {"hypervisor",
     [](NodeView* n) { n->hypervisor_ready = false; },
     {},
     "NoNode",
     "0/1 nodes: 1 without a usable hypervisor"},
    {"template",
     {},
     [](Demand* d) { d->image.clear(), d->template_name = "warm", d->holders = {"other"}; },
     "NoNode",
     "0/1 nodes: 1 without template warm"},
    {"image",
     {},
     [](Demand* d) { d->image = "alpine"; },
     "ImageNotFound",
     "0/1 nodes: 1 without image alpine"},
    {"refused",
     {},
     [](Demand* d) { d->refused = {"n"}; },
     "NoCapacity",
     "0/1 nodes: 1 that refused it lately"},
    {"disk",
     [](NodeView* n) { n->disk_pressure = true; },
     {},
     "NoCapacity",
     "0/1 nodes: 1 short of disk"},
    {"memory",
     [](NodeView* n) {
       n->reserved = {1, 16 * kGiB - 1, 1};
     },
     {},
     "NoCapacity",
     "0/1 nodes: 1 without room for 1Gi memory"},
    {"vcpus",
     [](NodeView* n) {
       n->reserved = {7, 0, 1};
     },
     [](Demand* d) { d->amount.vcpus = 2; }, "NoCapacity", "0/1 nodes: 1 without room for 2 vCPUs"},
    {"disk as asked for", [](NodeView* n) { n->reserved.disk_bytes = 96 * kGiB; },
     [](Demand* d) { d->amount.disk_bytes = 5 * kGiB; }, "NoCapacity",
     "0/1 nodes: 1 without room for 5Gi disk"},
    {"disk as large as the image",
     [](NodeView* n) { n->reserved.disk_bytes = 99 * kGiB; },
     {},
     "NoCapacity",
     "0/1 nodes: 1 without room for 2Gi disk"},
    {"disk that is exactly full",
     [](NodeView* n) { n->reserved.disk_bytes = 98 * kGiB; },
     {},
     "",
     ""},
    {"disk of a node that tells of none", [](NodeView* n) { n->capacity.disk_bytes = 0; },
     [](Demand* d) { d->amount.disk_bytes = 5 * kGiB; }, "", ""},
    {"more than there is at all",
     [](NodeView* n) {
       n->reserved = {1, kGiB, 1, kGiB};
     },
     [](Demand* d) { d->amount.disk_bytes = 64 * 1024 * kGiB; }, "NoCapacity",
     "0/1 nodes: 1 too small for 64Ti disk"},
    {"everything",
     [](NodeView* n) { n->reserved = n->capacity; },
     {},
     "NoCapacity",
     "0/1 nodes: 1 without room for 1 vCPU and 1Gi memory and 2Gi disk"},
    {"count",
     [](NodeView* n) { n->capacity.sandboxes = n->reserved.sandboxes = 3; },
     {},
     "NoCapacity",
     "0/1 nodes: 1 without room for one more sandbox"},
    {"exactly full is not too full",
     [](NodeView* n) {
       n->reserved = {7, 15 * kGiB, 7};
     },
     {},
     "",
     ""},
    {"label",
     [](NodeView* n) {
       n->labels = {{"disk", "fast"}};
     },
     [](Demand* d) {
       d->node_selector = {{"disk", "fast"}};
     },
     "", ""},
    {"tolerated",
     [](NodeView* n) {
       n->taints = {{"team", "a", "NoSchedule"}};
     },
     [](Demand* d) {
       d->tolerations = {{"team", "Equal", "a", ""}};
     },
     "", ""},
    {"a preference is none",
     [](NodeView* n) {
       n->taints = {{"x", "", "PreferNoSchedule"}};
     },
     {},
     "",
     ""},
    {"holds the template",
     {},
     [](Demand* d) { d->image.clear(), d->template_name = "warm", d->holders = {"n"}; },
     "",
     ""},
};

TEST(PlacementTest, EachCauseKeepsASandboxAwayAndIsTold) {
  for (const FitCase& one : kFitCases) {
    NodeView node = Node("n");
    Demand demand = Wants();
    if (one.node) one.node(&node);
    if (one.demand) one.demand(&demand);
    const Placement placement = Place(demand, {node});
    EXPECT_EQ(placement.node, *one.reason == '\0' ? "n" : "") << one.name;
    EXPECT_EQ(placement.reason, one.reason) << one.name;
    EXPECT_EQ(placement.message, one.message) << one.name;
  }
}

TEST(PlacementTest, TheMessageCountsNodesByCause) {
  std::vector<NodeView> nodes = {Node("a"), Node("b"), Node("c")};
  nodes[0].ready = false;
  nodes[1].reserved = nodes[2].reserved = {0, 13 * kGiB, 1};
  const Placement placement = Place(Wants(1, 4 * kGiB), nodes);
  EXPECT_EQ(placement.reason, "NoCapacity");
  EXPECT_EQ(placement.message, "0/3 nodes: 2 without room for 4Gi memory, 1 not Ready");
}

TEST(PlacementTest, AnImageThatOnlyFullNodesHaveIsAMatterOfRoom) {
  std::vector<NodeView> nodes = {Node("a"), Node("b")};
  nodes[0].images.clear();
  nodes[1].reserved = nodes[1].capacity;
  EXPECT_EQ(Place(Wants(), nodes).reason, "NoCapacity");
  nodes[1].images.clear();
  EXPECT_EQ(Place(Wants(), nodes).message, "0/2 nodes: 2 without image debian-12");
}

TEST(PlacementTest, WithoutAnyNodeItSaysSo) {
  const Placement placement = Place(Wants(), {});
  EXPECT_EQ(placement.reason, "NoNode");
  EXPECT_EQ(placement.message, "there is no SandboxNode yet: no agent has registered");
}

TEST(PlacementTest, ManyCausesAreNotAllTold) {
  std::vector<NodeView> nodes;
  for (int index = 0; index < 9; ++index) {
    nodes.push_back(Node("n" + std::to_string(index)));
    nodes.back().taints = {{"t" + std::to_string(index), "", "NoSchedule"}};
  }
  const std::string message = Place(Wants(), nodes).message;
  EXPECT_NE(message.find("t5:NoSchedule"), std::string::npos) << message;
  EXPECT_EQ(message.find("t6:NoSchedule"), std::string::npos) << message;
  EXPECT_TRUE(message.ends_with(", 3 for other causes")) << message;
}

TEST(PlacementTest, TheLeastAllocatedNodeWins) {
  std::vector<NodeView> nodes = {Node("a"), Node("b"), Node("c")};
  nodes[0].reserved = {4, 4 * kGiB, 4};
  nodes[1].reserved = {1, 2 * kGiB, 1};
  nodes[2].reserved = {1, 3 * kGiB, 1};
  EXPECT_EQ(Place(Wants(), nodes).node, "b");
}

TEST(PlacementTest, AShareCountsNotAnAmount) {
  std::vector<NodeView> nodes = {Node("big"), Node("small")};
  nodes[0].capacity = {32, 64 * kGiB, 0};
  nodes[0].reserved = {24, 48 * kGiB, 24};  // a quarter left, of much
  nodes[1].reserved = {2, 4 * kGiB, 2};     // three quarters left, of less
  EXPECT_EQ(Place(Wants(), nodes).node, "small");
}

TEST(PlacementTest, ATaintThatIsAPreferenceComesLast) {
  std::vector<NodeView> nodes = {Node("a"), Node("b")};
  nodes[0].taints = {{"x", "", "PreferNoSchedule"}};
  nodes[1].reserved = {7, 8 * kGiB, 7};
  EXPECT_EQ(Place(Wants(), nodes).node, "b");
  Demand tolerant = Wants();
  tolerant.tolerations = {{"", "Exists", "", ""}};
  EXPECT_EQ(Place(tolerant, nodes).node, "a");
}

TEST(PlacementTest, NamesBreakTies) {
  EXPECT_EQ(Place(Wants(), {Node("b"), Node("a")}).node, "a");
}

TEST(PlacementTest, TolerationsAreThoseOfAPod) {
  const api::Taint taint{"k", "v", "NoSchedule"};
  EXPECT_TRUE(Tolerates({"k", "Equal", "v", ""}, taint));
  EXPECT_TRUE(Tolerates({"k", "Equal", "v", "NoSchedule"}, taint));
  EXPECT_TRUE(Tolerates({"k", "Exists", "", ""}, taint));
  EXPECT_TRUE(Tolerates({"", "Exists", "", ""}, taint));
  EXPECT_FALSE(Tolerates({"k", "Equal", "w", ""}, taint));
  EXPECT_FALSE(Tolerates({"k", "Equal", "v", "NoExecute"}, taint));
  EXPECT_FALSE(Tolerates({"l", "Exists", "", ""}, taint));
  EXPECT_FALSE(Tolerates({"", "Equal", "", ""}, taint));
}

TEST(PlacementTest, ANodeIsSeenAsItsStatusAndItsLeaseSay) {
  api::SandboxNode node;
  node.meta.name = "n";
  api::SetCondition(&node.status.conditions,
                    {"Ready", api::ConditionStatus::kTrue, "Ready", "", 1, {}}, {});
  node.status.capacity = {4, 8 * kGiB, 50 * kGiB, 10, 100};
  node.status.images = {{"debian-12", "", 2 * kGiB}};
  EXPECT_TRUE(ViewOf(node, true).ready);
  EXPECT_FALSE(ViewOf(node, false).ready);
  EXPECT_EQ(ViewOf(node, true).capacity, (Amount{4, 8 * kGiB, 10, 50 * kGiB}));
  EXPECT_EQ(ViewOf(node, true).images.at("debian-12"), 2 * kGiB);
  EXPECT_TRUE(ViewOf(node, true).hypervisor_ready);
  api::SetCondition(&node.status.conditions,
                    {"HypervisorReady", api::ConditionStatus::kFalse, "x", "", 1, {}}, {});
  EXPECT_FALSE(ViewOf(node, true).hypervisor_ready);
  node.meta.deletion_time = WallTime{};
  EXPECT_TRUE(ViewOf(node, true).unschedulable);
}

}  // namespace
}  // namespace dormouse::controller
