#include "controller/lifecycle/next_step.h"

#include <gtest/gtest.h>

#include "src/common/base/time.h"

namespace dormouse::controller {
namespace {

using enum Step;

struct StepCase {
  const char* name;
  bool placed, deleting, finalizer;
  int released_generation;  ///< of Released=True; 0 = there is none. The object's is 7
  bool declared_gone, says_lost;
  NodeState node;
  Step step;
};

constexpr NodeState kAlive = NodeState::kAlive, kUnknown = NodeState::kUnknown,
                    kLost = NodeState::kLost;

const StepCase kStepCases[] = {
    // name                                placed deleting finalizer released gone says_lost node
    // step
    {"new", false, false, false, 0, false, false, kUnknown, kPlace},
    {"the last controller died half way", false, false, true, 0, false, false, kUnknown, kPlace},
    {"deleted before it was placed", false, true, true, 0, false, false, kUnknown,
     kRemoveFinalizer},
    {"deleted, held by another's finalizer", false, true, false, 0, false, false, kUnknown,
     kNothing},
    {"runs", true, false, true, 0, false, false, kAlive, kNothing},
    {"deleted, its agent works on it", true, true, true, 0, false, false, kAlive, kNothing},
    {"deleted, Released is of an older spec", true, true, true, 6, false, false, kAlive, kNothing},
    {"deleted and released", true, true, true, 7, false, false, kAlive, kRemoveFinalizer},
    {"deleted and released on a node that died since", true, true, true, 7, false, true, kLost,
     kRemoveFinalizer},
    {"refused by its agent", true, false, true, 7, false, false, kAlive, kPlaceAnew},
    {"refused an older spec", true, false, true, 6, false, false, kAlive, kNothing},
    {"its node stopped", true, false, true, 0, false, false, kLost, kMarkLost},
    {"its node stopped, and it says so", true, false, true, 0, false, true, kLost, kNothing},
    {"deleted, its node stopped", true, true, true, 0, false, false, kLost, kMarkLost},
    {"its node may be lost", true, false, true, 0, false, false, kUnknown, kNothing},
    {"its node is gone", true, false, true, 0, true, true, kLost, kLeaveGoneNode},
    {"deleted, its node is gone", true, true, true, 0, true, true, kLost, kRemoveFinalizer},
    {"its node is said to be gone, and lives", true, false, true, 0, true, false, kAlive,
     kGoneNodeLives},
    {"its node is said to be gone, and may live", true, false, true, 0, true, false, kUnknown,
     kNothing},
    {"deleted, its node is said to be gone, and lives", true, true, true, 0, true, false, kAlive,
     kGoneNodeLives},
};

TEST(NextStepTest, EachStateHasItsStep) {
  for (const StepCase& one : kStepCases) {
    api::Sandbox sandbox;
    sandbox.meta.generation = 7;
    if (one.placed) sandbox.status.node_name = "n1";
    if (one.deleting) sandbox.meta.deletion_time = WallTime{};
    sandbox.meta.finalizers = {"other.example/x"};
    if (one.finalizer) sandbox.meta.finalizers.emplace_back(api::kCleanupFinalizer);
    if (one.released_generation > 0) {
      sandbox.status.conditions.push_back(
          {"Released", api::ConditionStatus::kTrue, "Released", "", one.released_generation, {}});
    }
    if (one.declared_gone) sandbox.meta.annotations[api::kNodeIsGoneAnnotation] = "n1";
    if (one.says_lost) {
      sandbox.status.conditions.push_back(
          {"Ready", api::ConditionStatus::kUnknown, "NodeLost", "", 7, {}});
    }
    EXPECT_EQ(NextStep(sandbox, one.node, {}).step, one.step) << one.name;
  }
}

TEST(NextStepTest, AFinalizerThatWasTakenAwayIsPutBackBeforeAnythingElse) {
  api::Sandbox sandbox;
  sandbox.status.node_name = "n1";
  for (const char* phase :
       {api::phase::kStarting, api::phase::kRunning, api::phase::kSuspended, api::phase::kFailed}) {
    sandbox.status.phase = phase;
    EXPECT_EQ(NextStep(sandbox, NodeState::kAlive, {}).step, kClaimAgain) << phase;
  }
  sandbox.spec.lifecycle.shutdown_time = WallTime{};
  sandbox.spec.lifecycle.delete_at_shutdown = true;
  EXPECT_EQ(NextStep(sandbox, NodeState::kAlive, WallTime{std::chrono::hours(1)}).step, kClaimAgain)
      << "deleted without it, its files would stay on the node";
  sandbox.spec.lifecycle = {};
  sandbox.status.phase = api::phase::kScheduled;
  EXPECT_EQ(NextStep(sandbox, NodeState::kAlive, {}).step, kNothing)
      << "its agent refuses it: nothing was made";
  sandbox.status.phase = api::phase::kTerminating;
  sandbox.meta.deletion_time = WallTime{};
  EXPECT_EQ(NextStep(sandbox, NodeState::kAlive, {}).step, kNothing)
      << "the API server has none to add";
}

TEST(NextStepTest, TheWordThatANodeIsGoneIsAboutThatNodeOnly) {
  api::Sandbox sandbox;
  sandbox.status.node_name = "n2";
  sandbox.meta.annotations[api::kNodeIsGoneAnnotation] = "n1";
  EXPECT_EQ(NextStep(sandbox, NodeState::kLost, {}).step, kMarkLost);
}

TEST(NextStepTest, ReleasedThatIsNotTrueIsNotReleased) {
  api::Sandbox sandbox;
  sandbox.meta.generation = 7;
  sandbox.status.node_name = "n1";
  sandbox.status.conditions.push_back(
      {"Released", api::ConditionStatus::kFalse, "Released", "", 7, {}});
  EXPECT_EQ(NextStep(sandbox, NodeState::kAlive, {}).step, kNothing);
}

using namespace std::chrono_literals;
using api::ConditionStatus;
using api::OperatingMode;

const WallTime kNoon = *ParseTime("2030-01-02T12:00:00Z");

class LifecycleTest : public ::testing::Test {
 protected:
  LifecycleTest() {
    sandbox_.meta.uid = "u1";
    sandbox_.meta.generation = 7;
    sandbox_.status.node_name = "n1";
  }
  void Say(const char* type, ConditionStatus status, int64_t generation = 7) {
    api::SetCondition(&sandbox_.status.conditions,
                      {type, status, "R", "idle for 1m", generation, {}}, {});
  }
  Decision At(WallTime now) { return NextStep(sandbox_, kAlive, now); }

  api::Sandbox sandbox_;
};

TEST_F(LifecycleTest, AtItsShutdownTimeItIsStoppedOrDeletedAsItsPolicySays) {
  sandbox_.spec.lifecycle.shutdown_time = kNoon;
  EXPECT_EQ(At(kNoon - 5s).step, kNothing);
  EXPECT_EQ(At(kNoon - 5s).again, 5s);
  EXPECT_EQ(At(kNoon).step, kStop);
  sandbox_.spec.lifecycle.delete_at_shutdown = true;
  EXPECT_EQ(At(kNoon).step, kDelete);
  EXPECT_EQ(At(kNoon).reason, "Expired");
}

TEST_F(LifecycleTest, OneThatSleepsAtItsShutdownTimeKeepsItsMemoryUnlessItIsToBeDeleted) {
  sandbox_.spec.lifecycle.shutdown_time = kNoon;
  sandbox_.spec.operating_mode = OperatingMode::kSuspended;
  EXPECT_EQ(At(kNoon).step, kNothing);
  sandbox_.spec.lifecycle.delete_at_shutdown = true;
  EXPECT_EQ(At(kNoon).step, kDelete);
}

TEST_F(LifecycleTest, AShutdownTimeThatIsPastWhenItIsMadeHoldsBeforeItIsPlaced) {
  sandbox_.status.node_name.clear();
  sandbox_.spec.lifecycle.shutdown_time = kNoon - 24h;
  EXPECT_EQ(At(kNoon).step, kStop);
  sandbox_.spec.operating_mode = OperatingMode::kStopped;
  EXPECT_EQ(At(kNoon).step, kPlace) << "it is made as a machine that is off";
}

TEST_F(LifecycleTest, WhatHasFinishedIsDeletedAfterItsTtl) {
  sandbox_.spec.lifecycle.ttl_after_finished = 60s;
  EXPECT_EQ(At(kNoon).step, kNothing);
  EXPECT_FALSE(At(kNoon).again);
  sandbox_.status.finished_at = kNoon;
  Say("Finished", ConditionStatus::kTrue);
  EXPECT_EQ(At(kNoon + 59s).step, kNothing);
  EXPECT_EQ(At(kNoon + 59s).again, 1s);
  EXPECT_EQ(At(kNoon + 60s).step, kDelete);
}

TEST_F(LifecycleTest, OneThatIsBeingDeletedIsNotDeletedAgain) {
  sandbox_.spec.lifecycle = {kNoon, true, {}};
  sandbox_.meta.deletion_time = kNoon;
  sandbox_.meta.finalizers = {api::kCleanupFinalizer};
  EXPECT_EQ(At(kNoon).step, kNothing);
}

TEST_F(LifecycleTest, OneInWhichNothingHappensIsSuspendedOrDeletedAsItsActionSays) {
  sandbox_.spec.idle = api::Idle{60s};
  EXPECT_EQ(At(kNoon).step, kNothing) << "nobody has said so";
  Say("Idle", ConditionStatus::kTrue, 6);
  EXPECT_EQ(At(kNoon).step, kNothing) << "that was of another spec";
  Say("Idle", ConditionStatus::kTrue);
  EXPECT_EQ(At(kNoon).step, kSuspendIdle);
  EXPECT_EQ(At(kNoon).why, "suspended: idle for 1m");
  sandbox_.spec.idle->action = api::IdleAction::kDelete;
  EXPECT_EQ(At(kNoon).step, kDelete);
  api::SetCondition(&sandbox_.status.conditions,
                    {"Ready", ConditionStatus::kUnknown, "NodeLost", "", 7, {}}, {});
  EXPECT_EQ(NextStep(sandbox_, kLost, kNoon).step, kNothing) << "its agent is silent since";
  sandbox_.spec.operating_mode = OperatingMode::kSuspended;
  EXPECT_EQ(At(kNoon).step, kNothing) << "a suspend that a person asked for is never a delete";
}

TEST_F(LifecycleTest, OneInWhichSomethingHappenedBeforeItSleptRunsOn) {
  sandbox_.spec.idle = api::Idle{60s};
  sandbox_.spec.operating_mode = OperatingMode::kSuspended;
  Say("Idle", ConditionStatus::kFalse);
  EXPECT_EQ(At(kNoon).step, kNothing) << "a person put it to sleep";
  sandbox_.meta.annotations[api::kIdleSuspendAnnotation] = "u1/7";
  EXPECT_EQ(At(kNoon).step, kRunOn);
  for (const char* foreign : {"u2/7", "u1/6", "u1", ""}) {
    sandbox_.meta.annotations[api::kIdleSuspendAnnotation] = foreign;
    EXPECT_EQ(At(kNoon).step, kNothing) << foreign;
  }
  sandbox_.meta.annotations[api::kIdleSuspendAnnotation] = "u1/7";
  Say("Suspended", ConditionStatus::kTrue);
  EXPECT_EQ(At(kNoon).step, kNothing) << "it sleeps";
}

}  // namespace
}  // namespace dormouse::controller
