#include "controller/lifecycle/sandbox_controller.h"

#include <algorithm>
#include <utility>

#include "controller/lifecycle/guarded_patch.h"
#include "src/common/api/reasons.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/log.h"

namespace dormouse::controller {
namespace {

namespace reasons = api::reasons;
// The wall clock may be set while a timer, which runs by the other clock, waits for an instant.
constexpr auto kClockLook = std::chrono::seconds(1);
constexpr auto kClockJump = std::chrono::milliseconds(500);

using api::Condition;
using api::ConditionStatus;
using kube::ReconcileResult;

Condition MakeCondition(const char* type, ConditionStatus status, std::string_view reason,
                        std::string message, int64_t generation) {
  return Condition{type, status, std::string(reason), std::move(message), generation, {}};
}

/// The controller's own part of `status`: what it must send again, as an apply that leaves a field
/// out gives it up.
api::SandboxStatus OwnPart(const api::SandboxStatus& status) {
  api::SandboxStatus own;
  own.node_name = status.node_name;
  // Later phases are the agent's.
  if (status.phase == api::phase::kPending || status.phase == api::phase::kScheduled)
    own.phase = status.phase;
  for (const char* type : {api::condition::kScheduled, api::condition::kReady}) {
    if (const Condition* condition = api::FindCondition(status.conditions, type)) {
      own.conditions.push_back(*condition);
    }
  }
  return own;
}

/// Scheduled and Ready are both False for `reason`.
api::SandboxStatus WaitingStatus(const api::Sandbox& sandbox, std::string_view reason,
                                 const std::string& message, WallTime now) {
  api::SandboxStatus next = OwnPart(sandbox.status);
  next.node_name.clear();
  next.phase = api::phase::kPending;
  for (const char* type : {api::condition::kScheduled, api::condition::kReady}) {
    api::SetCondition(
        &next.conditions,
        MakeCondition(type, ConditionStatus::kFalse, reason, message, sandbox.meta.generation),
        now);
  }
  return next;
}

bool SameButForMessages(api::SandboxStatus left, api::SandboxStatus right) {
  for (api::SandboxStatus* status : {&left, &right}) {
    for (Condition& condition : status->conditions) condition.message.clear();
  }
  return left == right;
}

}  // namespace

SandboxController::SandboxController(SandboxStore& store, Scheduler& scheduler, NodeHealth& health,
                                     SandboxApi& api, kube::WorkQueue& queue, const Clock& clock,
                                     Options options)
    : store_(store),
      scheduler_(scheduler),
      health_(health),
      api_(api),
      queue_(queue),
      clock_(clock),
      options_(options),
      own_writes_(store) {
  store_.AddIndex(kByNode, [](const api::Sandbox& sandbox) {
    return sandbox.status.node_name.empty() ? std::vector<std::string>{}
                                            : std::vector<std::string>{sandbox.status.node_name};
  });
  store_.AddIndex(kByTemplate, [](const api::Sandbox& sandbox) {
    const std::string& name = sandbox.spec.snapshot_template;
    return name.empty() ? std::vector<std::string>{}
                        : std::vector<std::string>{sandbox.meta.ns + "/" + name};
  });
  store_.Subscribe([this](const SandboxStore::Change& change) { OnChange(change); });
}

void SandboxController::OnChange(const SandboxStore::Change& change) {
  const std::string key = change.ref.key.ToString();
  bool retry = false;
  if (change.after == nullptr) {
    retry = scheduler_.Forget(change.ref.uid);
    own_writes_.Forget(key);
    std::lock_guard lock(mutex_);
    reported_.erase(key);
  } else {
    retry = scheduler_.Observe(change.ref.key);
    queue_.Add(key, change.initial ? kube::Priority::kLow : kube::Priority::kNormal);
  }
  if (retry) queue_.Add(kRetryKey);
}

NodeState SandboxController::StateOf(const api::Sandbox& sandbox) const {
  return sandbox.status.node_name.empty() ? NodeState::kUnknown
                                          : health_.Of(sandbox.status.node_name).state;
}

Result<ReconcileResult> SandboxController::Reconcile(const std::string& key) {
  if (key == kRetryKey) return RetryWaiting();
  if (key == kClockKey) return LookAtClock();
  if (own_writes_.AreAhead(key)) return ReconcileResult::RequeueAfter(options_.cache_patience);
  const Ptr sandbox = store_.Get(kube::ObjectKey::Parse(key));
  if (sandbox == nullptr) return ReconcileResult::Done();
  if (sandbox->meta.deletion_time) scheduler_.Withdraw(sandbox->meta.uid);
  const Decision decision = NextStep(*sandbox, StateOf(*sandbox), clock_.WallNow());
  const Outcome outcome = Act(sandbox, decision.step);
  if (!outcome || !decision.again) return outcome;
  // A moment more, so that the time has come when it ends.
  const auto again = *decision.again + std::chrono::milliseconds(1);
  const auto sooner = outcome->requeue_after();
  if (outcome->requeue() || (sooner && *sooner <= again)) return outcome;
  return ReconcileResult::RequeueAfter(again);
}

Result<ReconcileResult> SandboxController::Act(const Ptr& sandbox, Step step) {
  switch (step) {
    case Step::kNothing:
      return ReconcileResult::Done();
    case Step::kPlace:
      return PlaceIt(sandbox);
    case Step::kClaimAgain:
      return ClaimAgain(*sandbox);
    case Step::kMarkLost:
      return MarkLost(*sandbox);
    case Step::kPlaceAnew:
    case Step::kLeaveGoneNode:
    case Step::kRemoveFinalizer:
    case Step::kDelete:
    case Step::kStop:
    case Step::kSuspendIdle:
    case Step::kRunOn:
      return ActLive(*sandbox, step);
    case Step::kGoneNodeLives:
      break;
  }
  api_.Record(*sandbox, kube::EventType::kWarning, reasons::kNodeNotLost, "Place",
              "the annotation " + std::string(api::kNodeIsGoneAnnotation) +
                  " has no effect: the agent of " + sandbox->status.node_name + " is alive");
  return ReconcileResult::Done();
}

Result<ReconcileResult> SandboxController::RetryWaiting() {
  for (const kube::ObjectKey& waiting : scheduler_.Retry()) queue_.Add(waiting.ToString());
  return ReconcileResult::Done();
}

Result<ReconcileResult> SandboxController::PlaceIt(const Ptr& sandbox) {
  const std::optional<Placement> placement = scheduler_.Decide(*sandbox);
  if (!placement) return ReconcileResult::Done();  // the cache has moved on, and so has the queue
  return placement->node.empty() ? ReportWaiting(*sandbox, *placement)
                                 : AssignTo(*sandbox, placement->node);
}

Result<ReconcileResult> SandboxController::AssignTo(const api::Sandbox& sandbox,
                                                    const std::string& node) {
  const std::string name = sandbox.meta.key().ToString();
  DORMOUSE_TRY(failpoint::Hit("controller.place.before-finalizer", name));
  kube::ObjectMeta meta = sandbox.meta;
  if (!IsClaimed(meta)) {
    DORMOUSE_ASSIGN(meta, api_.Claim(meta));
    own_writes_.Wrote(name, meta.resource_version);
  }
  DORMOUSE_TRY(failpoint::Hit("controller.place.after-finalizer", name));
  const WallTime now = clock_.WallNow();
  api::SandboxStatus next = OwnPart(sandbox.status);
  next.node_name = node;
  next.phase = api::phase::kScheduled;
  api::SetCondition(
      &next.conditions,
      MakeCondition(api::condition::kScheduled, ConditionStatus::kTrue, reasons::kScheduled,
                    "placed on " + node, sandbox.meta.generation),
      now);
  api::SetCondition(
      &next.conditions,
      MakeCondition(api::condition::kReady, ConditionStatus::kFalse, reasons::kStarting,
                    "waiting for the agent of " + node, sandbox.meta.generation),
      now);
  DORMOUSE_ASSIGN(const kube::ResourceVersion version, api_.ApplyStatus(meta, next));
  own_writes_.Wrote(name, version);
  DORMOUSE_TRY(failpoint::Hit("controller.place.after-node-name", name));
  api_.Record(sandbox, kube::EventType::kNormal, reasons::kScheduled, "Place", "placed on " + node);
  log::Info("placed", {{"sandbox", name}, {"uid", sandbox.meta.uid}, {"node", node}});
  return ReconcileResult::Done();
}

Result<ReconcileResult> SandboxController::ReportWaiting(const api::Sandbox& sandbox,
                                                         const Placement& placement) {
  const std::string name = sandbox.meta.key().ToString();
  const WallTime now = clock_.WallNow();
  const api::SandboxStatus shown = OwnPart(sandbox.status);
  const api::SandboxStatus next = WaitingStatus(sandbox, placement.reason, placement.message, now);
  const auto refusal_ends = scheduler_.RefusalEnds(sandbox.meta.uid);
  const auto settled = [&] {
    return refusal_ends ? ReconcileResult::RequeueAfter(*refusal_ends) : ReconcileResult::Done();
  };
  if (next == shown) return settled();
  if (SameButForMessages(next, shown)) {
    std::lock_guard lock(mutex_);
    const auto last = reported_.find(name);
    if (last != reported_.end()) {
      const auto left = last->second + options_.message_period - clock_.Now();
      if (left > MonotonicTime::duration::zero()) return ReconcileResult::RequeueAfter(left);
    }
  }
  DORMOUSE_ASSIGN(const kube::ResourceVersion version, api_.ApplyStatus(sandbox.meta, next));
  own_writes_.Wrote(name, version);
  {
    std::lock_guard lock(mutex_);
    reported_[name] = clock_.Now();
  }
  const Condition* scheduled = api::FindCondition(shown.conditions, api::condition::kScheduled);
  if (scheduled == nullptr || scheduled->reason != placement.reason) {
    api_.Record(sandbox, kube::EventType::kWarning, placement.reason, "Place", placement.message);
    log::Info("waits",
              {{"sandbox", name}, {"reason", placement.reason}, {"message", placement.message}});
  }
  return settled();
}

Result<ReconcileResult> SandboxController::ClaimAgain(const api::Sandbox& sandbox) {
  const std::string name = sandbox.meta.key().ToString();
  DORMOUSE_ASSIGN(const kube::ObjectMeta meta, api_.Claim(sandbox.meta));
  own_writes_.Wrote(name, meta.resource_version);
  log::Warning("a sandbox had lost its finalizer, and has it again", {{"sandbox", name}});
  return ReconcileResult::Done();
}

Result<ReconcileResult> SandboxController::MarkLost(const api::Sandbox& sandbox) {
  const std::string& node = sandbox.status.node_name;
  const std::string message =
      "the agent of " + node + " does not answer; the sandbox may still run there";
  api::SandboxStatus next = OwnPart(sandbox.status);
  api::SetCondition(&next.conditions,
                    MakeCondition(api::condition::kReady, ConditionStatus::kUnknown,
                                  reasons::kNodeLost, message, sandbox.meta.generation),
                    clock_.WallNow());
  DORMOUSE_ASSIGN(const kube::ResourceVersion version, api_.ApplyStatus(sandbox.meta, next));
  own_writes_.Wrote(sandbox.meta.key().ToString(), version);
  api_.Record(sandbox, kube::EventType::kWarning, reasons::kNodeLost, "Watch", message);
  return ReconcileResult::Done();
}

Result<ReconcileResult> SandboxController::ActLive(const api::Sandbox& cached, Step step) {
  const auto live = api_.Read(cached.meta.key());
  if (!live && live.error().code() == ErrorCode::kNotFound) return ReconcileResult::Done();
  if (!live) return Fail(live.error());
  // Another object, or another state: the cache will show it, and then we look again.
  if (live->meta.uid != cached.meta.uid) return ReconcileResult::Done();
  const Decision decision = NextStep(*live, StateOf(*live), clock_.WallNow());
  if (decision.step != step) return ReconcileResult::RequeueAfter(options_.cache_patience);
  if (step == Step::kPlaceAnew || step == Step::kLeaveGoneNode) return TakeNodeAway(*live, step);
  if (step != Step::kRemoveFinalizer) return ActInTime(*live, decision);
  DORMOUSE_TRY(api_.RemoveFinalizer(live->meta));
  log::Info("released", {{"sandbox", live->meta.key().ToString()}, {"uid", live->meta.uid}});
  return ReconcileResult::Done();
}

Result<ReconcileResult> SandboxController::ActInTime(const api::Sandbox& live,
                                                     const Decision& decision) {
  const std::string name = live.meta.key().ToString();
  if (decision.step == Step::kDelete) {
    DORMOUSE_TRY(api_.Delete(live.meta));
  } else {
    const api::OperatingMode mode = decision.step == Step::kStop ? api::OperatingMode::kStopped
                                    : decision.step == Step::kSuspendIdle
                                        ? api::OperatingMode::kSuspended
                                        : api::OperatingMode::kRunning;
    // The API server counts the generation on by one with this write.
    const std::string mark = decision.step == Step::kSuspendIdle
                                 ? api::IdleSuspendMark(live.meta, live.meta.generation + 1)
                                 : std::string();
    DORMOUSE_ASSIGN(const kube::ResourceVersion version, api_.SetMode(live.meta, mode, mark));
    own_writes_.Wrote(name, version);
  }
  if (!decision.why.empty()) {
    api_.Record(live, kube::EventType::kNormal, decision.reason, "Watch", decision.why);
    log::Info("its time is over",
              {{"sandbox", name}, {"reason", decision.reason}, {"why", decision.why}});
  }
  return ReconcileResult::Done();
}

Result<ReconcileResult> SandboxController::LookAtClock() {
  const auto ahead = clock_.WallNow().time_since_epoch() - clock_.Now().time_since_epoch();
  const auto jump = ahead - std::exchange(clock_ahead_, ahead).value_or(ahead);
  if (jump > kClockJump || jump < -kClockJump) {
    for (const auto& sandbox : store_.List()) {
      if (sandbox->spec.lifecycle != api::Lifecycle{}) queue_.Add(sandbox->meta.key().ToString());
    }
  }
  return ReconcileResult::RequeueAfter(kClockLook);
}

Result<ReconcileResult> SandboxController::TakeNodeAway(const api::Sandbox& live, Step step) {
  const std::string node = live.status.node_name;
  std::string reason(reasons::kNodeLost);
  std::string message = node + " was declared gone; the sandbox starts anew from its source";
  if (step == Step::kPlaceAnew) {
    const Condition* released = ReleasedNow(live);
    reason = released->reason == reasons::kReleased ? std::string(reasons::kNoCapacity)
                                                    : released->reason;
    message = node + " refused it" + (released->message.empty() ? "" : ": " + released->message);
  }
  scheduler_.Refused(live.meta.uid, node);
  const api::SandboxStatus next = WaitingStatus(live, reason, message, clock_.WallNow());
  DORMOUSE_ASSIGN(const kube::ResourceVersion version, api_.ReplaceStatus(live.meta, next));
  own_writes_.Wrote(live.meta.key().ToString(), version);
  api_.Record(live, kube::EventType::kWarning, reason, "Place", message);
  log::Info("placed anew",
            {{"sandbox", live.meta.key().ToString()}, {"reason", reason}, {"message", message}});
  return ReconcileResult::Done();
}

}  // namespace dormouse::controller
