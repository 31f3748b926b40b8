#include "controller/templates/template_controller.h"

#include <algorithm>

#include "controller/lifecycle/guarded_patch.h"
#include "src/common/api/reasons.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/log.h"

namespace dormouse::controller {
namespace {

namespace reasons = api::reasons;
using api::Condition;
using api::ConditionStatus;
using api::SnapshotTemplate;
using api::SnapshotTemplateStatus;
using kube::ReconcileResult;

/// The index of the template store by source, as "namespace/name".
constexpr char kBySource[] = "source";

ReconcileResult Again(const TemplateDecision& decision) {
  // A moment more, so that the time has come when it ends.
  return decision.again
             ? ReconcileResult::RequeueAfter(*decision.again + std::chrono::milliseconds(1))
             : ReconcileResult::Done();
}

kube::ObjectKey SourceKey(const SnapshotTemplate& object) {
  return {object.meta.ns, object.source};
}

void Say(SnapshotTemplateStatus* status, const SnapshotTemplate& object, const char* type,
         ConditionStatus value, std::string_view reason, const std::string& message, WallTime now) {
  api::SetCondition(
      &status->conditions,
      Condition{type, value, std::string(reason), message, object.meta.generation, {}}, now);
}

/// The controller's own part, which is all there is while the template has no node: what an apply
/// must send again, as one that leaves a field out gives it up.
SnapshotTemplateStatus OwnPart(const SnapshotTemplateStatus& status) {
  SnapshotTemplateStatus own;
  own.node_name = status.node_name;
  own.phase = status.phase;
  own.error = status.error;
  for (const char* type : {api::condition::kReady, api::condition::kFailed}) {
    if (const Condition* condition = api::FindCondition(status.conditions, type))
      own.conditions.push_back(*condition);
  }
  return own;
}

SnapshotTemplateStatus WaitingStatus(const SnapshotTemplate& object,
                                     const TemplateDecision& decision, WallTime now) {
  SnapshotTemplateStatus next = OwnPart(object.status);
  next.phase = api::template_phase::kPending;
  Say(&next, object, api::condition::kReady, ConditionStatus::kFalse, reasons::kSourceNotReady,
      decision.message, now);
  if (decision.step == TemplateStep::kFail) {
    next.phase = api::template_phase::kFailed;
    next.error = SnapshotTemplateStatus::Failure{now, decision.message};
    Say(&next, object, api::condition::kFailed, ConditionStatus::kTrue, reasons::kSourceNotReady,
        decision.message, now);
  }
  return next;
}

}  // namespace

TemplateController::TemplateController(SnapshotTemplateStore& templates, SandboxStore& sandboxes,
                                       NodeHealth& health, TemplateApi& api, kube::WorkQueue& queue,
                                       const Clock& clock, Options options)
    : templates_(templates),
      sandboxes_(sandboxes),
      health_(health),
      api_(api),
      queue_(queue),
      clock_(clock),
      options_(options),
      own_writes_(templates) {
  templates_.AddIndex(kBySource, [](const SnapshotTemplate& object) {
    return std::vector<std::string>{SourceKey(object).ToString()};
  });
  templates_.Subscribe([this](const auto& change) { OnTemplate(change); });
  sandboxes_.Subscribe([this](const auto& change) { OnSandbox(change); });
}

void TemplateController::OnTemplate(const SnapshotTemplateStore::Change& change) {
  const std::string key = change.ref.key.ToString();
  if (change.after != nullptr) {
    queue_.Add(key, change.initial ? kube::Priority::kLow : kube::Priority::kNormal);
    return;
  }
  own_writes_.Forget(key);
}

void TemplateController::OnSandbox(const SandboxStore::Change& change) {
  // Those that wait for it as their source.
  for (const auto& object : templates_.ByIndex(kBySource, change.ref.key.ToString())) {
    if (object->status.node_name.empty()) queue_.Add(object->meta.key().ToString());
  }
  // The one that it waits for itself: no longer awaited, its ttl may have passed.
  const auto awaits = [](const SandboxStore::Ptr& sandbox) {
    return sandbox != nullptr && sandbox->status.node_name.empty() &&
           !sandbox->spec.snapshot_template.empty();
  };
  if (awaits(change.before) && !awaits(change.after)) {
    queue_.Add(change.ref.key.ns + "/" + change.before->spec.snapshot_template);
  }
}

TemplateDecision TemplateController::Decide(const SnapshotTemplate& object) const {
  const auto source = sandboxes_.Get(SourceKey(object));
  TemplateView view;
  view.source = source.get();
  if (!object.status.node_name.empty()) view.node = health_.Of(object.status.node_name);
  const auto users = sandboxes_.ByIndex(kByTemplate, object.meta.key().ToString());
  view.awaited = std::any_of(users.begin(), users.end(), [](const auto& sandbox) {
    return sandbox->status.node_name.empty() && !sandbox->meta.deletion_time;
  });
  view.now = clock_.WallNow();
  return NextTemplateStep(object, view);
}

Result<ReconcileResult> TemplateController::Reconcile(const std::string& key) {
  if (own_writes_.AreAhead(key)) return ReconcileResult::RequeueAfter(options_.cache_patience);
  const auto object = templates_.Get(kube::ObjectKey::Parse(key));
  if (object == nullptr) return ReconcileResult::Done();
  const TemplateDecision decision = Decide(*object);
  switch (decision.step) {
    case TemplateStep::kNothing:
      return Again(decision);
    case TemplateStep::kPlace:
      return Place(*object);
    case TemplateStep::kWait:
    case TemplateStep::kFail:
      return Report(*object, decision);
    case TemplateStep::kClaimAgain:
      return ClaimAgain(*object);
    case TemplateStep::kSettleSource:
    case TemplateStep::kExpire:
    case TemplateStep::kRemoveFinalizer:
      return ActLive(*object, decision.step);
    case TemplateStep::kGoneNodeLives:
      break;
  }
  api_.Record(*object, kube::EventType::kWarning, reasons::kNodeNotLost, "Release",
              "the annotation " + std::string(api::kNodeIsGoneAnnotation) +
                  " has no effect: the agent of " + object->status.node_name + " is alive");
  return Again(decision);
}

Result<ReconcileResult> TemplateController::ClaimAgain(const SnapshotTemplate& object) {
  const std::string name = object.meta.key().ToString();
  DORMOUSE_ASSIGN(const kube::ObjectMeta meta, api_.Claim(object.meta));
  own_writes_.Wrote(name, meta.resource_version);
  log::Warning("a template had lost its finalizer, and has it again", {{"template", name}});
  return ReconcileResult::Done();
}

Result<ReconcileResult> TemplateController::Place(const SnapshotTemplate& object) {
  // A template keeps the node that it got, so the source's is read live.
  const auto source = api_.ReadSource(SourceKey(object));
  if (!source && source.error().code() != ErrorCode::kNotFound) return Fail(source.error());
  if (!SourceObstacle(object.source, source ? &*source : nullptr).empty())
    return ReconcileResult::RequeueAfter(options_.cache_patience);
  const std::string& node = source->status.node_name;
  const std::string name = object.meta.key().ToString();
  DORMOUSE_TRY(failpoint::Hit("controller.template.before-finalizer", name));
  kube::ObjectMeta meta = object.meta;
  if (!IsClaimed(meta)) {
    DORMOUSE_ASSIGN(meta, api_.Claim(meta));
    own_writes_.Wrote(name, meta.resource_version);
  }
  DORMOUSE_TRY(failpoint::Hit("controller.template.after-finalizer", name));
  SnapshotTemplateStatus next = OwnPart(object.status);
  next.node_name = node;
  next.phase = api::template_phase::kPending;
  Say(&next, object, api::condition::kReady, ConditionStatus::kFalse, reasons::kCapturing,
      "waiting for the agent of " + node, clock_.WallNow());
  DORMOUSE_ASSIGN(const kube::ResourceVersion version, api_.ApplyStatus(meta, next));
  own_writes_.Wrote(name, version);
  DORMOUSE_TRY(failpoint::Hit("controller.template.after-node-name", name));
  api_.Record(object, kube::EventType::kNormal, reasons::kScheduled, "Place",
              "captured on " + node + ", where the Sandbox " + object.source + " is");
  log::Info("placed", {{"template", name}, {"uid", object.meta.uid}, {"node", node}});
  return ReconcileResult::Done();
}

Result<ReconcileResult> TemplateController::Report(const SnapshotTemplate& object,
                                                   const TemplateDecision& decision) {
  const std::string name = object.meta.key().ToString();
  const SnapshotTemplateStatus shown = OwnPart(object.status);
  const SnapshotTemplateStatus next = WaitingStatus(object, decision, clock_.WallNow());
  if (next == shown) return Again(decision);
  DORMOUSE_ASSIGN(const kube::ResourceVersion version, api_.ApplyStatus(object.meta, next));
  own_writes_.Wrote(name, version);
  if (shown.conditions.empty() || decision.step == TemplateStep::kFail) {
    api_.Record(object, kube::EventType::kWarning, reasons::kSourceNotReady, "Place",
                decision.message);
    log::Info(decision.step == TemplateStep::kFail ? "failed" : "waits",
              {{"template", name}, {"message", decision.message}});
  }
  return Again(decision);
}

Result<ReconcileResult> TemplateController::ActLive(const SnapshotTemplate& cached,
                                                    TemplateStep step) {
  const auto live = api_.Read(cached.meta.key());
  if (!live && live.error().code() == ErrorCode::kNotFound) return ReconcileResult::Done();
  if (!live) return Fail(live.error());
  // Another object, or another state: the cache will show it, and then we look again.
  if (live->meta.uid != cached.meta.uid) return ReconcileResult::Done();
  if (Decide(*live).step != step) return ReconcileResult::RequeueAfter(options_.cache_patience);
  if (step == TemplateStep::kSettleSource) return SettleSource(*live);
  if (step == TemplateStep::kExpire) return Expire(*live);
  DORMOUSE_TRY(api_.RemoveFinalizer(live->meta));
  log::Info("released", {{"template", live->meta.key().ToString()}, {"uid", live->meta.uid}});
  return ReconcileResult::Done();
}

Result<ReconcileResult> TemplateController::SettleSource(const SnapshotTemplate& live) {
  const std::string name = live.meta.key().ToString();
  const auto source = api_.ReadSource(SourceKey(live));
  if (!source && source.error().code() != ErrorCode::kNotFound) return Fail(source.error());
  // What has the source's name now may be another sandbox, which nobody asked to settle.
  const bool there =
      source && source->meta.uid == live.status.source_uid && !source->meta.deletion_time;
  const bool suspend = live.source_after_capture == api::SourceAfterCapture::kSuspend;
  if (there && suspend) {
    const auto mark = source->meta.annotations.find(api::kSuspendedForAnnotation);
    const bool done = mark != source->meta.annotations.end() && mark->second == live.meta.uid;
    if (!done) DORMOUSE_TRY(api_.SuspendSource(source->meta, live.meta.uid));
  }
  if (there && !suspend) DORMOUSE_TRY(api_.DeleteSource(source->meta));
  DORMOUSE_TRY(failpoint::Hit("controller.template.after-source", name));
  DORMOUSE_ASSIGN(const kube::ResourceVersion version, api_.MarkSettled(live.meta));
  own_writes_.Wrote(name, version);
  if (there) {
    api_.Record(live, kube::EventType::kNormal,
                suspend ? reasons::kSuspended : reasons::kTerminating, "SettleSource",
                "the Sandbox " + live.source + (suspend ? " is suspended" : " is deleted") +
                    ", as sourceAfterCapture asks");
  }
  log::Info("source settled", {{"template", name}, {"source", live.source}});
  return ReconcileResult::Done();
}

Result<ReconcileResult> TemplateController::Expire(const SnapshotTemplate& live) {
  DORMOUSE_TRY(api_.Delete(live.meta));
  api_.Record(live, kube::EventType::kWarning, reasons::kExpired, "Expire",
              "deleted, as nothing has used it for its ttl");
  log::Info("expired", {{"template", live.meta.key().ToString()}, {"uid", live.meta.uid}});
  return ReconcileResult::Done();
}

}  // namespace dormouse::controller
