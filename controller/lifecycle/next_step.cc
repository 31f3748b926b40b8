#include "controller/lifecycle/next_step.h"

#include <algorithm>

#include "src/common/api/reasons.h"
#include "src/common/base/time.h"

namespace dormouse::controller {
namespace {

bool DeclaredGone(const api::Sandbox& sandbox) {
  const auto found = sandbox.meta.annotations.find(api::kNodeIsGoneAnnotation);
  return found != sandbox.meta.annotations.end() && found->second == sandbox.status.node_name;
}

/// Its agent has made something of it, or is about to. Before that it is the agent that refuses one
/// without a finalizer, and it is placed anew.
bool IsAgents(const api::Sandbox& sandbox) {
  const std::string& phase = sandbox.status.phase;
  return !phase.empty() && phase != api::phase::kPending && phase != api::phase::kScheduled;
}

bool SaysLost(const api::Sandbox& sandbox) {
  const api::Condition* ready =
      api::FindCondition(sandbox.status.conditions, api::condition::kReady);
  return ready != nullptr && ready->status == api::ConditionStatus::kUnknown &&
         ready->reason == api::reasons::kNodeLost;
}

}  // namespace

const api::Condition* ReleasedNow(const api::Sandbox& sandbox) {
  const api::Condition* released = api::FindConditionNow(sandbox, api::condition::kReleased);
  return released != nullptr && released->status == api::ConditionStatus::kTrue ? released
                                                                                : nullptr;
}

namespace {

/// Of its node and of its end: what time does not change.
Step StepOfPlace(const api::Sandbox& sandbox, NodeState node) {
  const bool deleting = sandbox.meta.deletion_time.has_value();
  const bool ours = sandbox.meta.HasFinalizer(api::kCleanupFinalizer);
  if (deleting && !ours) return Step::kNothing;
  if (sandbox.status.node_name.empty()) return deleting ? Step::kRemoveFinalizer : Step::kPlace;
  if (ReleasedNow(sandbox) != nullptr) return deleting ? Step::kRemoveFinalizer : Step::kPlaceAnew;
  if (!ours && IsAgents(sandbox)) return Step::kClaimAgain;
  if (DeclaredGone(sandbox)) {
    if (node == NodeState::kLost) return deleting ? Step::kRemoveFinalizer : Step::kLeaveGoneNode;
    if (node == NodeState::kAlive) return Step::kGoneNodeLives;
  }
  if (node == NodeState::kLost && !SaysLost(sandbox)) return Step::kMarkLost;
  return Step::kNothing;
}

/// The instant, and whether it has come: until then `decision` knows when.
bool HasCome(WallTime instant, WallTime now, Decision* decision) {
  if (instant <= now) return true;
  const std::chrono::nanoseconds left = instant - now;
  decision->again = std::min(decision->again.value_or(left), left);
  return false;
}

/// Its end by the clock.
Decision DecideLifecycle(const api::Sandbox& sandbox, WallTime now) {
  Decision decision;
  const api::Lifecycle& life = sandbox.spec.lifecycle;
  const auto act = [&](Step step, std::string why) {
    decision.step = step;
    decision.reason = api::reasons::kExpired;
    decision.why = std::move(why);
  };
  if (life.shutdown_time && HasCome(*life.shutdown_time, now, &decision)) {
    const std::string came = "its shutdownTime " + FormatTime(*life.shutdown_time) + " has come";
    if (life.delete_at_shutdown) {
      act(Step::kDelete, "deleted, as " + came);
      return decision;
    }
    // One that sleeps runs nothing, and keeps its memory.
    if (sandbox.spec.operating_mode == api::OperatingMode::kRunning) {
      act(Step::kStop, "stopped, as " + came + "; its disk is kept");
      return decision;
    }
  }
  if (life.ttl_after_finished && sandbox.status.finished_at &&
      api::IsTrue(sandbox.status.conditions, api::condition::kFinished) &&
      HasCome(*sandbox.status.finished_at + *life.ttl_after_finished, now, &decision)) {
    act(Step::kDelete, "deleted, as its ttlAfterFinished is over");
  }
  return decision;
}

/// The agent says whether something happens in it; what follows is the controller's.
Decision DecideIdle(const api::Sandbox& sandbox) {
  const api::Condition* idle = api::FindConditionNow(sandbox, api::condition::kIdle);
  if (idle == nullptr) return {};
  const bool running = sandbox.spec.operating_mode == api::OperatingMode::kRunning;
  if (running && sandbox.spec.idle && idle->status == api::ConditionStatus::kTrue) {
    const bool removes = sandbox.spec.idle->action == api::IdleAction::kDelete;
    return {removes ? Step::kDelete : Step::kSuspendIdle, api::reasons::kIdleTimeout,
            (removes ? "deleted: " : "suspended: ") + idle->message};
  }
  if (api::IsIdleSuspended(sandbox) && idle->status == api::ConditionStatus::kFalse &&
      !api::IsTrue(sandbox.status.conditions, api::condition::kSuspended)) {
    return {Step::kRunOn};
  }
  return {};
}

}  // namespace

Decision NextStep(const api::Sandbox& sandbox, NodeState node, WallTime now) {
  const Step of_place = StepOfPlace(sandbox, node);
  // Before what may delete it.
  if (sandbox.meta.deletion_time || of_place == Step::kClaimAgain) return {of_place};
  Decision decision = DecideLifecycle(sandbox, now);
  if (decision.step != Step::kNothing) return decision;
  const auto again = decision.again;
  // What was said by an agent that is silent now may not be so any more.
  decision = of_place == Step::kNothing && node != NodeState::kLost ? DecideIdle(sandbox)
                                                                    : Decision{of_place};
  decision.again = again;
  return decision;
}

}  // namespace dormouse::controller
