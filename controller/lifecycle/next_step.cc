#include "controller/lifecycle/next_step.h"

#include "src/common/api/reasons.h"

namespace dormouse::controller {
namespace {

bool DeclaredGone(const api::Sandbox& sandbox) {
  const auto found = sandbox.meta.annotations.find(api::kNodeIsGoneAnnotation);
  return found != sandbox.meta.annotations.end() && found->second == sandbox.status.node_name;
}

bool SaysLost(const api::Sandbox& sandbox) {
  const api::Condition* ready =
      api::FindCondition(sandbox.status.conditions, api::condition::kReady);
  return ready != nullptr && ready->status == api::ConditionStatus::kUnknown &&
         ready->reason == api::reasons::kNodeLost;
}

}  // namespace

const api::Condition* ReleasedNow(const api::Sandbox& sandbox) {
  const api::Condition* released =
      api::FindCondition(sandbox.status.conditions, api::condition::kReleased);
  const bool now = released != nullptr && released->status == api::ConditionStatus::kTrue &&
                   released->observed_generation == sandbox.meta.generation;
  return now ? released : nullptr;
}

Step NextStep(const api::Sandbox& sandbox, NodeState node) {
  const bool deleting = sandbox.meta.deletion_time.has_value();
  const bool ours = sandbox.meta.HasFinalizer(api::kCleanupFinalizer);
  if (deleting && !ours) return Step::kNothing;
  if (sandbox.status.node_name.empty()) return deleting ? Step::kRemoveFinalizer : Step::kPlace;
  if (ReleasedNow(sandbox) != nullptr) return deleting ? Step::kRemoveFinalizer : Step::kPlaceAnew;
  if (DeclaredGone(sandbox)) {
    if (node == NodeState::kLost) return deleting ? Step::kRemoveFinalizer : Step::kLeaveGoneNode;
    if (node == NodeState::kAlive) return Step::kGoneNodeLives;
  }
  if (node == NodeState::kLost && !SaysLost(sandbox)) return Step::kMarkLost;
  return Step::kNothing;
}

}  // namespace dormouse::controller
