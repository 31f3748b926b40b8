#include "controller/lifecycle/sandbox_controller.h"

#include <gtest/gtest.h>

#include "controller/lifecycle/fake_sandbox_api.h"
#include "src/common/api/reasons.h"
#include "src/common/base/units.h"

namespace dormouse::controller {
namespace {

using namespace std::chrono_literals;
using api::ConditionStatus;
using testing::Test;

using Lines = std::vector<std::string>;

class SandboxControllerTest : public Test {
 protected:
  SandboxControllerTest() { SetNode("a", 2); }

  void SetNode(const std::string& name, int vcpus) {
    api::SandboxNode node;
    node.meta.name = name;
    api::SetCondition(&node.status.conditions,
                      {"Ready", ConditionStatus::kTrue, "Ready", "", 1, {}}, {});
    node.status.capacity = {vcpus, 64 * kGiB, 0, 0, 0};
    node.status.images = {{"debian-12", "", 0}};
    Renew(name);
    if (scheduler_.SetNode(node, true)) queue_.Add(kRetryKey);
  }
  void Renew(const std::string& node) {
    kube::LeaseRecord lease;
    lease.ref.resource_version = kube::ResourceVersion(std::to_string(++lease_version_));
    lease.renewed = clock_.WallNow();
    health_.Observe(node, lease);
  }
  /// Reconciles one key as it stands; false when it failed.
  bool Once(const std::string& name) { return controller_.Reconcile("team/" + name).has_value(); }
  /// Lets cache and queue go on until nothing more happens.
  void Settle() {
    for (int round = 0; round < 50; ++round) {
      api_.CatchUp();
      const auto key = queue_.TryGet();
      if (!key) return;
      const auto result = controller_.Reconcile(*key);
      if (!result) queue_.Add(*key);
      if (result && result->requeue_after()) queue_.AddAfter(*key, *result->requeue_after());
      queue_.Done(*key);
    }
    FAIL() << "it does not settle";
  }
  const api::Sandbox& Seen(const std::string& name) { return *api_.Find(name); }
  std::string Shown(const std::string& name, const char* type = "Scheduled") {
    const api::Condition* condition = api::FindCondition(Seen(name).status.conditions, type);
    if (condition == nullptr) return "";
    const char* const words[] = {"True", "False", "Unknown"};
    return words[static_cast<int>(condition->status)] + std::string(" ") + condition->reason;
  }
  void Report(const std::string& name, const char* type, ConditionStatus status,
              const std::string& reason, const std::string& message = "") {
    api::Sandbox& sandbox = api_.Edit(name);
    api::SetCondition(&sandbox.status.conditions,
                      {type, status, reason, message, sandbox.meta.generation, {}}, {});
  }

  FakeClock clock_;
  metrics::Registry metrics_;
  SandboxStore cache_;
  FakeSandboxApi api_{cache_};
  kube::WorkQueue queue_{[this] {
    kube::WorkQueueOptions options;
    options.clock = &clock_;
    options.metrics = &metrics_;
    return options;
  }()};
  Scheduler scheduler_{[this](const kube::ObjectKey& key) { return cache_.Get(key); },
                       [](const std::string&, const std::string&) { return nullptr; },
                       clock_,
                       {60s}};
  NodeHealth health_{clock_, 40s};
  SandboxController controller_{cache_, scheduler_, health_, api_, queue_, clock_, {}};
  int lease_version_ = 0;
};

TEST_F(SandboxControllerTest, ANewSandboxGetsItsFinalizerAndThenItsNode) {
  api_.Edit("web");
  Settle();
  EXPECT_EQ(api_.writes, (Lines{"claim web", "apply status of web"}));
  EXPECT_EQ(Seen("web").status.node_name, "a");
  EXPECT_EQ(Seen("web").status.phase, "Scheduled");
  EXPECT_EQ(Shown("web"), "True Scheduled");
  EXPECT_EQ(Shown("web", "Ready"), "False Starting");
  EXPECT_TRUE(Seen("web").meta.HasFinalizer(api::kCleanupFinalizer));
  EXPECT_EQ(api_.events, (Lines{"Scheduled web"}));
}

TEST_F(SandboxControllerTest, AWordAboutANodeThatCameWithACopyMeansNothing) {
  api_.Edit("copy").meta.annotations[api::kNodeIsGoneAnnotation] = "a";
  Settle();
  EXPECT_EQ(Seen("copy").status.node_name, "a") << "it was never there before";
  EXPECT_FALSE(Seen("copy").meta.annotations.contains(api::kNodeIsGoneAnnotation))
      << "it would count when that node is lost";
}

TEST_F(SandboxControllerTest, AFinalizerThatAReplaceTookAwayIsBackAtOnce) {
  api_.Edit("web");
  Settle();
  api::Sandbox& replaced = api_.Edit("web");
  replaced.meta.finalizers.clear();
  replaced.status.phase = api::phase::kRunning;
  Settle();
  EXPECT_TRUE(Seen("web").meta.HasFinalizer(api::kCleanupFinalizer));
  EXPECT_EQ(Seen("web").status.node_name, "a");
}

TEST_F(SandboxControllerTest, ItDoesNotActOnACacheOlderThanItsOwnWrite) {
  api_.Edit("web");
  api_.CatchUp();
  ASSERT_TRUE(Once("web"));
  ASSERT_EQ(api_.writes.size(), 2U);
  const auto again = controller_.Reconcile("team/web");
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->requeue_after()) << "waits for the cache";
  EXPECT_EQ(api_.writes.size(), 2U);
}

TEST_F(SandboxControllerTest, AControllerThatDiedAfterTheFinalizerIsSucceededBySimplyPlacing) {
  api_.Edit("web").meta.finalizers = {api::kCleanupFinalizer};
  Settle();
  EXPECT_EQ(api_.writes, (Lines{"apply status of web"}));
  EXPECT_EQ(Seen("web").status.node_name, "a");
}

TEST_F(SandboxControllerTest, AWriteThatFailedIsRepeatedWithTheSamePromise) {
  api_.Edit("web");
  api_.fail_next = ErrorCode::kUnavailable;
  Settle();
  EXPECT_EQ(Seen("web").status.node_name, "a");
  EXPECT_EQ(scheduler_.Reserved("a").sandboxes, 1);
}

TEST_F(SandboxControllerTest, AChangeInBetweenIsNeverOverwritten) {
  api_.Edit("web");
  api_.CatchUp();
  api_.Delete("web");
  api_.Edit("web");  // a successor of the same name
  EXPECT_FALSE(Once("web"));
  EXPECT_EQ(api_.writes, Lines{});
}

TEST_F(SandboxControllerTest, CapacityIsExactHoweverFarTheCacheLags) {
  for (int index = 0; index < 5; ++index) api_.Edit("s" + std::to_string(index));
  api_.CatchUp();
  for (int index = 0; index < 5; ++index) ASSERT_TRUE(Once("s" + std::to_string(index)));
  EXPECT_EQ(Seen("s0").status.node_name + Seen("s1").status.node_name, "aa");
  for (const char* name : {"s2", "s3", "s4"}) EXPECT_EQ(Shown(name), "False NoCapacity") << name;
  EXPECT_EQ(api_.Find("s2")->meta.finalizers, Lines{})
      << "a sandbox that waits can be deleted at once";
}

TEST_F(SandboxControllerTest, OneThatWaitsSaysWhyOnce) {
  api_.Edit("web").spec.image = "alpine";
  Settle();
  EXPECT_EQ(Shown("web"), "False ImageNotFound");
  EXPECT_EQ(Shown("web", "Ready"), "False ImageNotFound");
  EXPECT_EQ(Seen("web").status.phase, "Pending");
  EXPECT_EQ(api_.events, (Lines{"ImageNotFound web"}));
  queue_.Add("team/web");
  Settle();
  EXPECT_EQ(api_.writes.size(), 1U);
}

TEST_F(SandboxControllerTest, AMessageThatChangesOftenIsNotWrittenEachTime) {
  api_.Edit("web").spec.image = "alpine";
  Settle();
  SetNode("b", 1);
  Settle();
  EXPECT_EQ(api_.writes.size(), 1U) << "the reason is the same";
  clock_.Advance(10s);
  Settle();
  EXPECT_EQ(api_.writes.size(), 2U);
  EXPECT_EQ(api::FindCondition(Seen("web").status.conditions, "Scheduled")->message,
            "0/2 nodes: 2 without image alpine");
  EXPECT_EQ(api_.events.size(), 1U);
}

TEST_F(SandboxControllerTest, RoomThatIsFreedIsTakenByTheOldest) {
  for (const char* name : {"s1", "s2", "s3", "s4"}) api_.Edit(name);
  Settle();
  ASSERT_EQ(Shown("s3"), "False NoCapacity");
  api_.Delete("s1");
  Report("s1", "Released", ConditionStatus::kTrue, "Released");
  Settle();
  EXPECT_EQ(api_.Find("s1"), nullptr);
  EXPECT_EQ(Seen("s3").status.node_name, "a");
  EXPECT_EQ(Seen("s4").status.node_name, "");
}

TEST_F(SandboxControllerTest, DeletedBeforeItWasPlacedItGoesAtOnce) {
  api_.Edit("web").meta.finalizers = {api::kCleanupFinalizer};
  api_.Delete("web");
  Settle();
  EXPECT_EQ(api_.Find("web"), nullptr);
  EXPECT_EQ(api_.reads, 1) << "after a live read";
}

TEST_F(SandboxControllerTest, DeletedAfterItWasPlacedItWaitsForItsAgent) {
  api_.Edit("web");
  Settle();
  api_.Delete("web");
  Settle();
  ASSERT_NE(api_.Find("web"), nullptr);
  Report("web", "Released", ConditionStatus::kTrue, "Released");
  Settle();
  EXPECT_EQ(api_.Find("web"), nullptr);
  EXPECT_EQ(scheduler_.Reserved("a"), Amount{});
}

TEST_F(SandboxControllerTest, TheFinalizerIsNotRemovedOnTheWordOfAStaleCache) {
  api_.Edit("web").meta.finalizers = {api::kCleanupFinalizer};
  api_.Delete("web");
  api_.CatchUp();
  api_.Edit("web").status.node_name = "a";  // another leader placed it a moment ago
  ASSERT_TRUE(Once("web"));
  EXPECT_EQ(api_.writes, Lines{});
}

TEST_F(SandboxControllerTest, RefusedByOneNodeItIsPlacedOnAnother) {
  api_.Edit("web");
  Settle();
  ASSERT_EQ(Seen("web").status.node_name, "a");
  SetNode("b", 1);
  Report("web", "Released", ConditionStatus::kTrue, "NoCapacity", "no disk");
  api_.Edit("web").status.started_at = WallTime{5s};
  Settle();
  EXPECT_EQ(Seen("web").status.node_name, "b");
  EXPECT_EQ(Shown("web", "Released"), "") << "what the first agent wrote is gone";
  EXPECT_EQ(Seen("web").status.started_at, std::nullopt);
  EXPECT_EQ(api_.events, (Lines{"Scheduled web", "NoCapacity web", "Scheduled web"}));
}

TEST_F(SandboxControllerTest, RefusedByTheOnlyNodeItWaitsAndTriesAgain) {
  api_.Edit("web");
  Settle();
  Report("web", "Released", ConditionStatus::kTrue, "NoCapacity", "no disk");
  Settle();
  EXPECT_EQ(Seen("web").status.node_name, "");
  EXPECT_EQ(Shown("web"), "False NoCapacity");
  Renew("a");
  clock_.Advance(61s);
  Settle();
  EXPECT_EQ(Seen("web").status.node_name, "a");
}

TEST_F(SandboxControllerTest, ALostNodesSandboxIsMarkedAndStays) {
  api_.Edit("web");
  Settle();
  api_.Edit("web").status.phase = "Running";
  Report("web", "Ready", ConditionStatus::kTrue, "Ready");
  Settle();
  clock_.Advance(40s);
  queue_.Add("team/web");
  Settle();
  EXPECT_EQ(Shown("web", "Ready"), "Unknown NodeLost");
  EXPECT_EQ(Seen("web").status.node_name, "a");
  EXPECT_EQ(Seen("web").status.phase, "Running") << "the phase is the agent's";
  const size_t writes = api_.writes.size();
  queue_.Add("team/web");
  Settle();
  EXPECT_EQ(api_.writes.size(), writes) << "said once";
}

TEST_F(SandboxControllerTest, APersonsWordMovesASandboxOffALostNodeOnly) {
  SetNode("b", 1);
  api_.Edit("web");
  Settle();
  ASSERT_EQ(Seen("web").status.node_name, "a");
  api_.Edit("web").meta.annotations[api::kNodeIsGoneAnnotation] = "a";
  Settle();
  EXPECT_EQ(Seen("web").status.node_name, "a") << "its agent is alive";
  EXPECT_EQ(api_.events.back(), "NodeNotLost web");
  clock_.Advance(40s);
  Renew("b");
  queue_.Add("team/web");
  Settle();
  EXPECT_EQ(Seen("web").status.node_name, "b");
}

TEST_F(SandboxControllerTest, APersonsWordEndsADeletionOnALostNode) {
  api_.Edit("web");
  Settle();
  api_.Edit("web").meta.annotations[api::kNodeIsGoneAnnotation] = "a";
  api_.Delete("web");
  clock_.Advance(40s);
  Settle();
  EXPECT_EQ(api_.Find("web"), nullptr);
}

TEST_F(SandboxControllerTest, AtItsShutdownTimeASandboxIsStoppedOnceAndTold) {
  api_.Edit("web").spec.lifecycle.shutdown_time = clock_.WallNow() + 30s;
  Settle();
  clock_.Advance(29s);
  Settle();
  EXPECT_EQ(Seen("web").spec.operating_mode, api::OperatingMode::kRunning);
  clock_.Advance(2s);
  Settle();
  EXPECT_EQ(Seen("web").spec.operating_mode, api::OperatingMode::kStopped);
  EXPECT_EQ(std::count(api_.events.begin(), api_.events.end(), "Expired web"), 1);
}

TEST_F(SandboxControllerTest, AClockThatIsSetForwardIsNoticed) {
  api_.Edit("web").spec.lifecycle = {clock_.WallNow() + 24h, true, {}};
  queue_.Add(kClockKey);
  Settle();
  clock_.JumpWall(25h);
  clock_.Advance(1s);
  Settle();
  EXPECT_TRUE(Seen("web").meta.deletion_time);
}

TEST_F(SandboxControllerTest, ASandboxThatIsIdleSleepsAndOneThatIsBusyAgainRunsOn) {
  api_.Edit("web").spec.idle = api::Idle{60s};
  Settle();
  Report("web", "Idle", ConditionStatus::kTrue, "IdleTimeout");
  Settle();
  EXPECT_TRUE(api::IsIdleSuspended(Seen("web")));
  EXPECT_EQ(std::count(api_.events.begin(), api_.events.end(), "IdleTimeout web"), 1);
  Report("web", "Idle", ConditionStatus::kFalse, "Running");
  Settle();
  EXPECT_EQ(Seen("web").spec.operating_mode, api::OperatingMode::kRunning);
  EXPECT_FALSE(Seen("web").meta.annotations.contains(api::kIdleSuspendAnnotation));
}

TEST_F(SandboxControllerTest, AnIdleSandboxThatWasTouchedMeanwhileIsLeftAlone) {
  api_.Edit("web").spec.idle = api::Idle{60s};
  Settle();
  Report("web", "Idle", ConditionStatus::kTrue, "IdleTimeout");
  api_.CatchUp();
  Report("web", "Idle", ConditionStatus::kFalse, "Running");  // the cache does not know yet
  EXPECT_TRUE(Once("web"));
  EXPECT_EQ(Seen("web").spec.operating_mode, api::OperatingMode::kRunning);
}

}  // namespace
}  // namespace dormouse::controller
