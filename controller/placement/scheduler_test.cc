#include "controller/placement/scheduler.h"

#include <gtest/gtest.h>

#include <map>

#include "src/common/base/units.h"

namespace dormouse::controller {
namespace {

using namespace std::chrono_literals;

class SchedulerTest : public testing::Test {
 protected:
  /// A node with room for `vcpus`, and memory without end. Its image has 2 GiB.
  bool SetNode(const std::string& name, int vcpus, bool fresh = true, int64_t disk_bytes = 0) {
    api::SandboxNode node;
    node.meta.name = name;
    api::SetCondition(&node.status.conditions,
                      {"Ready", api::ConditionStatus::kTrue, "Ready", "", 1, {}}, {});
    node.status.capacity = {vcpus, 1024 * kGiB, disk_bytes, 0, 0};
    node.status.images = {{"debian-12", "", 2 * kGiB}};
    return scheduler_.SetNode(node, fresh);
  }

  /// In the cache, but not told to the scheduler yet. Ages follow the order of creation.
  api::Sandbox& Add(const std::string& name, int vcpus = 1) {
    auto sandbox = std::make_shared<api::Sandbox>();
    sandbox->meta.ns = "team";
    sandbox->meta.name = name;
    sandbox->meta.uid = "uid-" + name;
    sandbox->meta.creation_time = WallTime{std::chrono::seconds(++created_)};
    sandbox->spec.image = "debian-12";
    sandbox->spec.resources = api::Resources{vcpus, kGiB};
    cache_[name] = sandbox;
    return *sandbox;
  }
  /// The cache shows it on `node`.
  bool Show(const std::string& name, const std::string& node) {
    auto next = std::make_shared<api::Sandbox>(*cache_.at(name));
    next->status.node_name = node;
    cache_[name] = next;
    return scheduler_.Observe({"team", name});
  }
  bool Remove(const std::string& name) {
    cache_.erase(name);
    return scheduler_.Forget("uid-" + name);
  }
  /// The node's name, or the reason in brackets, or "-".
  std::string Decide(const std::string& name) {
    const auto placement = scheduler_.Decide(*cache_.at(name));
    if (!placement) return "-";
    return placement->node.empty() ? "[" + placement->reason + "]" : placement->node;
  }
  std::vector<std::string> Retry() {
    std::vector<std::string> names;
    for (const auto& key : scheduler_.Retry()) names.push_back(key.name);
    return names;
  }

  FakeClock clock_;
  std::map<std::string, std::shared_ptr<api::Sandbox>> cache_;
  int created_ = 0;
  Scheduler scheduler_{[this](const kube::ObjectKey& key) -> Scheduler::SandboxPtr {
                         const auto found = cache_.find(key.name);
                         return found == cache_.end() ? nullptr : found->second;
                       },
                       [](const std::string&, const std::string&) { return nullptr; },
                       clock_,
                       {60s}};
};

TEST_F(SchedulerTest, APromiseIsKeptUntilTheCacheShowsIt) {
  SetNode("a", 2);
  Add("one"), Add("two"), Add("three");
  EXPECT_EQ(Decide("one"), "a");
  EXPECT_EQ(Decide("two"), "a");
  EXPECT_EQ(Decide("three"), "[NoCapacity]") << "two are promised, though no write has been seen";
  EXPECT_EQ(Decide("one"), "a") << "the same answer again";
  EXPECT_EQ(scheduler_.Reserved("a").vcpus, 2);
  Show("one", "a");
  EXPECT_EQ(scheduler_.Reserved("a").vcpus, 2) << "seen, it is counted once";
  scheduler_.Observe({"team", "two"});
  EXPECT_EQ(scheduler_.Reserved("a").vcpus, 2) << "a stale event does not undo a promise";
}

TEST_F(SchedulerTest, ADiskAsLargeAsItsImageIsCountedBeforeAndAfterItsAgentHasToldOfIt) {
  SetNode("a", 9, true, 5 * kGiB);
  Add("one"), Add("two"), Add("three");
  EXPECT_EQ(Decide("one"), "a");
  EXPECT_EQ(Decide("two"), "a");
  EXPECT_EQ(Decide("three"), "[NoCapacity]") << "promised";
  Show("one", "a");
  Show("two", "a");
  EXPECT_EQ(scheduler_.Reserved("a").disk_bytes, 4 * kGiB) << "seen";
  cache_.at("one")->status.disk_bytes = 2 * kGiB;
  scheduler_.Observe({"team", "one"});
  EXPECT_EQ(scheduler_.Reserved("a").disk_bytes, 4 * kGiB) << "told";
  EXPECT_EQ(Decide("three"), "[NoCapacity]");
  EXPECT_TRUE(Remove("one"));
  EXPECT_EQ(Decide("three"), "a");
}

TEST_F(SchedulerTest, FreedRoomGoesToTheOldest) {
  SetNode("a", 1);
  Add("first"), Add("second"), Add("third");
  EXPECT_EQ(Decide("first"), "a");
  Show("first", "a");
  EXPECT_EQ(Decide("third"), "[NoCapacity]");
  EXPECT_EQ(Decide("second"), "[NoCapacity]");
  EXPECT_TRUE(Remove("first"));
  Add("newest");
  EXPECT_EQ(Decide("newest"), "[NoCapacity]") << "others have waited longer";
  EXPECT_EQ(Retry(), (std::vector<std::string>{"second"}));
  EXPECT_EQ(Decide("second"), "a");
  EXPECT_EQ(Retry(), (std::vector<std::string>{}));
  EXPECT_EQ(scheduler_.Waiting(), 2U);
}

TEST_F(SchedulerTest, OneThatDoesNotFitHoldsUpNobody) {
  SetNode("a", 2);
  Add("large", 4), Add("small", 2);
  EXPECT_EQ(Decide("large"), "[NoCapacity]");
  EXPECT_EQ(Decide("small"), "a");
}

TEST_F(SchedulerTest, ANodeThatComesIsTriedByAllThatWaitInOrderOfAge) {
  Add("one"), Add("two"), Add("three");
  EXPECT_EQ(Decide("two"), "[NoNode]");
  EXPECT_EQ(Decide("one"), "[NoNode]");
  EXPECT_EQ(Decide("three"), "[NoNode]");
  EXPECT_TRUE(SetNode("a", 2));
  EXPECT_EQ(Retry(), (std::vector<std::string>{"one", "two", "three"}))
      << "the third has another reason now";
  EXPECT_EQ(Decide("three"), "[NoCapacity]");
  EXPECT_EQ(Decide("two"), "a");
  EXPECT_EQ(Decide("one"), "a");
}

TEST_F(SchedulerTest, ANodeThatDidNotChangeIsNoNews) {
  EXPECT_TRUE(SetNode("a", 2));
  EXPECT_FALSE(SetNode("a", 2));
  EXPECT_TRUE(SetNode("a", 2, false)) << "its Lease is stale now";
}

TEST_F(SchedulerTest, APromiseOnANodeThatFailsIsMadeAnew) {
  SetNode("a", 4);
  SetNode("b", 2);
  Add("one");
  ASSERT_EQ(Decide("one"), "a");
  SetNode("a", 4, false);
  EXPECT_EQ(Decide("one"), "b");
  EXPECT_EQ(scheduler_.Reserved("a"), Amount{});
}

TEST_F(SchedulerTest, WhatIsPlacedOrGoingIsNotDecidedUpon) {
  SetNode("a", 4);
  Add("placed").status.node_name = "a";
  Add("going").meta.deletion_time = WallTime{};
  const api::Sandbox gone = Add("gone");
  cache_.erase("gone");
  EXPECT_EQ(Decide("placed"), "-");
  EXPECT_EQ(Decide("going"), "-");
  EXPECT_EQ(scheduler_.Decide(gone), std::nullopt);
  EXPECT_EQ(scheduler_.Reserved("a"), Amount{}) << "nothing was promised to them";
}

TEST_F(SchedulerTest, ANodeThatRefusedIsAvoidedForAWhile) {
  SetNode("a", 4);
  Add("one");
  scheduler_.Refused("uid-one", "a");
  EXPECT_EQ(Decide("one"), "[NoCapacity]");
  EXPECT_EQ(scheduler_.RefusalEnds("uid-one"), 60s);
  clock_.Advance(60s);
  EXPECT_EQ(Decide("one"), "a");
}

TEST_F(SchedulerTest, SleepFreesRoomAndSaysSo) {
  SetNode("a", 1);
  Add("one"), Add("two");
  ASSERT_EQ(Decide("one"), "a");
  Show("one", "a");
  ASSERT_EQ(Decide("two"), "[NoCapacity]");
  auto asleep = std::make_shared<api::Sandbox>(*cache_.at("one"));
  asleep->spec.operating_mode = api::OperatingMode::kSuspended;
  api::SetCondition(&asleep->status.conditions,
                    {"Suspended", api::ConditionStatus::kTrue, "Suspended", "", 0, {}}, {});
  cache_["one"] = asleep;
  EXPECT_TRUE(scheduler_.Observe({"team", "one"}));
  EXPECT_EQ(Decide("two"), "a");
}

}  // namespace
}  // namespace dormouse::controller
