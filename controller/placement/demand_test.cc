#include "controller/placement/demand.h"

#include <gtest/gtest.h>

#include "src/common/base/units.h"

namespace dormouse::controller {
namespace {

api::Sandbox Clone() {
  api::Sandbox sandbox;
  sandbox.meta.ns = "team";
  sandbox.meta.generation = 2;
  sandbox.spec.snapshot_template = "warm";
  return sandbox;
}

std::shared_ptr<api::SnapshotTemplate> Warm() {
  auto source = std::make_shared<api::SnapshotTemplate>();
  source->status.ready_to_use = true;
  source->status.node_name = "n1";
  source->status.nodes = {"n1", "n2"};
  source->status.resources = api::Resources{2, kGiB};
  return source;
}

TemplateLookup Knows(std::shared_ptr<const api::SnapshotTemplate> source) {
  return [source](const std::string& ns, const std::string& name) {
    return ns == "team" && name == "warm" ? source : nullptr;
  };
}

std::string WaitsWith(const api::Sandbox& sandbox, const TemplateLookup& templates) {
  const auto demand = DemandOf(sandbox, templates);
  const Waits* waits = std::get_if<Waits>(&demand);
  return waits == nullptr ? "" : waits->reason + ": " + waits->message;
}

TEST(DemandTest, ATemplateIsWaitedFor) {
  EXPECT_EQ(WaitsWith(Clone(), Knows(nullptr)),
            "SourceNotReady: there is no SnapshotTemplate warm in this namespace yet");
  auto source = Warm();
  source->status.ready_to_use = false;
  EXPECT_EQ(WaitsWith(Clone(), Knows(source)),
            "SourceNotReady: the SnapshotTemplate warm is not ready yet");
  source = Warm();
  source->status.ready_to_use = false;
  source->status.conditions = {{api::condition::kReady,
                                api::ConditionStatus::kFalse,
                                "Capturing",
                                "the source is being captured",
                                0,
                                {}}};
  EXPECT_EQ(WaitsWith(Clone(), Knows(source)),
            "SourceNotReady: the SnapshotTemplate warm is not ready: the source is being captured");
  source = Warm();
  source->meta.deletion_time = WallTime{};
  EXPECT_EQ(WaitsWith(Clone(), Knows(source)),
            "SourceNotReady: the SnapshotTemplate warm is being deleted");
}

TEST(DemandTest, ACloneNeedsWhatWasFrozen) {
  const auto demand = DemandOf(Clone(), Knows(Warm()));
  ASSERT_TRUE(std::holds_alternative<Demand>(demand));
  EXPECT_EQ(std::get<Demand>(demand).amount, (Amount{2, kGiB, 1}));
  EXPECT_EQ(std::get<Demand>(demand).holders, (std::set<std::string>{"n1", "n2"}));
  api::Sandbox equal = Clone();
  equal.spec.asked.vcpus = 2;
  EXPECT_EQ(WaitsWith(equal, Knows(Warm())), "");
}

TEST(DemandTest, ACloneOfAnotherSizeIsRefusedByName) {
  api::Sandbox larger = Clone();
  larger.spec.asked.memory_bytes = 2 * kGiB;
  EXPECT_EQ(WaitsWith(larger, Knows(Warm())),
            "InvalidSpec: spec.resources: the SnapshotTemplate warm was frozen with 2 vCPU and 1Gi "
            "memory: leave "
            "resources out, or write that");
}

TEST(DemandTest, ADiskIsHeldAlsoByOneThatSleeps) {
  api::Sandbox sandbox;
  sandbox.meta.generation = 2;
  sandbox.spec.image = "debian-12";
  sandbox.spec.disk_bytes = 5 * kGiB;
  const auto demand = DemandOf(sandbox, Knows(nullptr));
  EXPECT_EQ(std::get<Demand>(demand).amount.disk_bytes, 5 * kGiB);
  sandbox.status.node_name = "n1";
  EXPECT_EQ(HoldingOf(sandbox, Knows(nullptr))->amount.disk_bytes, 5 * kGiB);
  sandbox.spec.operating_mode = api::OperatingMode::kSuspended;
  api::SetCondition(&sandbox.status.conditions,
                    {"Suspended", api::ConditionStatus::kTrue, "Suspended", "", 2, {}}, {});
  EXPECT_EQ(HoldingOf(sandbox, Knows(nullptr))->amount, (Amount{0, 0, 0, 5 * kGiB}));
  sandbox.status.disk_bytes = 6 * kGiB;
  EXPECT_EQ(HoldingOf(sandbox, Knows(nullptr))->amount.disk_bytes, 6 * kGiB)
      << "what is reported counts most";
}

TEST(DemandTest, AClonesDiskIsItsTemplates) {
  auto source = Warm();
  source->status.disk_bytes = 3 * kGiB;
  api::Sandbox clone = Clone();
  EXPECT_EQ(std::get<Demand>(DemandOf(clone, Knows(source))).amount.disk_bytes, 3 * kGiB);
  clone.status.node_name = "n1";
  EXPECT_EQ(HoldingOf(clone, Knows(source))->amount.disk_bytes, 3 * kGiB);
  clone.status.disk_bytes = 3 * kGiB;
  EXPECT_EQ(HoldingOf(clone, Knows(nullptr))->amount.disk_bytes, 3 * kGiB)
      << "also when the template is gone";
}

TEST(DemandTest, OnlyAMachineHoldsRoom) {
  api::Sandbox sandbox = Clone();
  EXPECT_EQ(HoldingOf(sandbox, Knows(Warm())), std::nullopt);
  sandbox.status.node_name = "n1";
  EXPECT_EQ(HoldingOf(sandbox, Knows(Warm()))->amount, (Amount{2, kGiB, 1}))
      << "before the agent has reported";
  sandbox.status.resources = api::Resources{4, kGiB};
  EXPECT_EQ(HoldingOf(sandbox, Knows(nullptr))->amount, (Amount{4, kGiB, 1}))
      << "what is reported counts most";

  api::Condition suspended{"Suspended", api::ConditionStatus::kTrue, "Suspended", "", 2, {}};
  api::SetCondition(&sandbox.status.conditions, suspended, {});
  EXPECT_EQ(HoldingOf(sandbox, Knows(nullptr))->amount.sandboxes, 1)
      << "it is to wake: its room is kept";
  sandbox.spec.operating_mode = api::OperatingMode::kSuspended;
  EXPECT_EQ(HoldingOf(sandbox, Knows(nullptr))->amount, Amount{}) << "it sleeps";
  sandbox.meta.generation = 3;
  EXPECT_EQ(HoldingOf(sandbox, Knows(nullptr))->amount.sandboxes, 1)
      << "the condition speaks of an older spec";
  api::SetCondition(&sandbox.status.conditions,
                    {"Finished", api::ConditionStatus::kTrue, "Completed", "", 3, {}}, {});
  EXPECT_EQ(HoldingOf(sandbox, Knows(nullptr))->amount, Amount{}) << "it has ended";
}

}  // namespace
}  // namespace dormouse::controller
