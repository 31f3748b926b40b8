#include "controller/templates/template_step.h"

#include <algorithm>

#include "controller/lifecycle/next_step.h"

namespace dormouse::controller {
namespace {

using api::ConditionStatus;
using api::SnapshotTemplate;

bool DeclaredGone(const SnapshotTemplate& object) {
  const auto found = object.meta.annotations.find(api::kNodeIsGoneAnnotation);
  return found != object.meta.annotations.end() && found->second == object.status.node_name;
}

bool Released(const SnapshotTemplate& object) {
  const api::Condition* released =
      api::FindCondition(object.status.conditions, api::condition::kReleased);
  return released != nullptr && released->status == ConditionStatus::kTrue &&
         released->observed_generation == object.meta.generation;
}

std::string Seconds(std::chrono::nanoseconds time) {
  return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()) + " s";
}

TemplateDecision End(const SnapshotTemplate& object, const NodeHealth::Verdict& node) {
  if (!object.meta.HasFinalizer(api::kCleanupFinalizer)) return {};
  if (object.status.node_name.empty() || Released(object))
    return {TemplateStep::kRemoveFinalizer, {}, {}};
  if (!DeclaredGone(object)) return {};
  if (node.state == NodeState::kLost) return {TemplateStep::kRemoveFinalizer, {}, {}};
  const TemplateStep step =
      node.state == NodeState::kAlive ? TemplateStep::kGoneNodeLives : TemplateStep::kNothing;
  return {step, {}, node.ends_in};
}

TemplateDecision Place(const SnapshotTemplate& object, const TemplateView& view) {
  if (api::IsTrue(object.status.conditions, api::condition::kFailed)) return {};
  std::string obstacle = SourceObstacle(object.source, view.source);
  const std::chrono::nanoseconds left =
      object.meta.creation_time + object.failure_deadline - view.now;
  if (left <= std::chrono::nanoseconds(0)) {
    std::string message =
        "nothing was captured within failureDeadline (" + Seconds(object.failure_deadline) + ")";
    if (!obstacle.empty()) message += ": " + obstacle;
    return {TemplateStep::kFail, std::move(message), {}};
  }
  if (obstacle.empty()) return {TemplateStep::kPlace, {}, {}};
  return {TemplateStep::kWait, std::move(obstacle), left};
}

/// The mark of another, which this one was copied from, says nothing of it.
bool IsSettled(const SnapshotTemplate& object) {
  const auto mark = object.meta.annotations.find(api::kSourceSettledAnnotation);
  return mark != object.meta.annotations.end() && mark->second == object.meta.uid;
}

bool MustSettle(const SnapshotTemplate& object) {
  return object.source_after_capture != api::SourceAfterCapture::kResume &&
         !object.status.source_uid.empty() && !IsSettled(object);
}

/// When it was last used: captured, or left by the last of those that used it. Nothing while it is
/// in use, or its agent has not said.
std::optional<WallTime> UnusedSince(const SnapshotTemplate& object) {
  if (object.status.references > 0 || !object.status.creation_time) return std::nullopt;
  const api::Condition* used = api::FindCondition(object.status.conditions, api::condition::kInUse);
  if (used == nullptr) return object.status.creation_time;
  if (used->status != ConditionStatus::kFalse) return std::nullopt;
  return std::max(*object.status.creation_time, used->last_transition);
}

TemplateDecision Tend(const SnapshotTemplate& object, const TemplateView& view) {
  const bool is_agents =
      !object.status.phase.empty() && object.status.phase != api::template_phase::kPending;
  if (is_agents && !object.meta.HasFinalizer(api::kCleanupFinalizer))
    return {TemplateStep::kClaimAgain, {}, {}};
  if (!object.status.ready_to_use) return {};
  if (MustSettle(object)) return {TemplateStep::kSettleSource, {}, {}};
  const auto unused_since = UnusedSince(object);
  if (object.ttl <= std::chrono::nanoseconds(0) || !unused_since || view.awaited) return {};
  const std::chrono::nanoseconds left = *unused_since + object.ttl - view.now;
  if (left <= std::chrono::nanoseconds(0)) return {TemplateStep::kExpire, {}, {}};
  return {TemplateStep::kNothing, {}, left};
}

}  // namespace

std::string SourceObstacle(const std::string& name, const api::Sandbox* source) {
  if (source == nullptr) return "there is no Sandbox " + name + " in this namespace yet";
  if (source->meta.deletion_time) return "the Sandbox " + name + " is being deleted";
  if (source->status.node_name.empty()) return "the Sandbox " + name + " has no node yet";
  // Its agent refused it: it is about to get another node, and a template keeps the one it got.
  if (ReleasedNow(*source) != nullptr)
    return "the Sandbox " + name + " was refused by " + source->status.node_name +
           " and is placed anew";
  return {};
}

TemplateDecision NextTemplateStep(const SnapshotTemplate& object, const TemplateView& view) {
  if (object.meta.deletion_time) return End(object, view.node);
  return object.status.node_name.empty() ? Place(object, view) : Tend(object, view);
}

}  // namespace dormouse::controller
