#include "controller/lifecycle/next_step.h"

#include <gtest/gtest.h>

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
    EXPECT_EQ(NextStep(sandbox, one.node), one.step) << one.name;
  }
}

TEST(NextStepTest, TheWordThatANodeIsGoneIsAboutThatNodeOnly) {
  api::Sandbox sandbox;
  sandbox.status.node_name = "n2";
  sandbox.meta.annotations[api::kNodeIsGoneAnnotation] = "n1";
  EXPECT_EQ(NextStep(sandbox, NodeState::kLost), kMarkLost);
}

TEST(NextStepTest, ReleasedThatIsNotTrueIsNotReleased) {
  api::Sandbox sandbox;
  sandbox.meta.generation = 7;
  sandbox.status.node_name = "n1";
  sandbox.status.conditions.push_back(
      {"Released", api::ConditionStatus::kFalse, "Released", "", 7, {}});
  EXPECT_EQ(NextStep(sandbox, NodeState::kAlive), kNothing);
}

}  // namespace
}  // namespace dormouse::controller
