// What is no ordinary sandbox: one that is refused or deleted, one without an object, and one whose
// record this agent cannot read.
#include <nlohmann/json.hpp>

#include "node-agent/sandbox/agent.h"
#include "src/common/api/reasons.h"
#include "src/common/base/json_text.h"
#include "src/common/base/log.h"

namespace dormouse {

using namespace std::chrono_literals;
using kube::ReconcileResult;
namespace reasons = api::reasons;

Result<ReconcileResult> Agent::Refuse(const api::Sandbox& sandbox, const Error& error,
                                      std::string_view reason) {
  StatusInputs in;
  in.problem = ProblemOf(std::nullopt, error);
  if (!reason.empty()) in.problem->reason = reason;
  if (sandbox.spec.image.empty() && error.code() == ErrorCode::kNotFound)
    in.problem->reason = reasons::kSourceNotReady;
  in.vmm = machine_.Vmm();
  if (error.code() == ErrorCode::kUnavailable) {
    DORMOUSE_TRY(Tell(sandbox, std::move(in)));
    return ReconcileResult::RequeueAfter(1s);
  }
  // A spec that no node can meet fails here; what only this node lacks is placed anew.
  in.refused = error.code() != ErrorCode::kInvalid;
  if (!in.refused) in.outcome = Outcome::kFailed;
  DORMOUSE_TRY(Tell(sandbox, std::move(in)));
  return ReconcileResult::Done();
}

Result<ReconcileResult> Agent::ReconcileUnreadable(const api::Sandbox& sandbox) {
  StatusInputs in;
  in.problem = Problem{std::string(reasons::kRecordCorrupt),
                       "the node's record of this sandbox is damaged and was put into quarantine; "
                       "what runs was left "
                       "running; delete the sandbox to release it"};
  in.outcome = Outcome::kFailed;
  in.record.uid = sandbox.uid;
  in.vmm = machine_.Vmm();
  DORMOUSE_TRY(Tell(sandbox, std::move(in)));
  return ReconcileResult::Done();
}

Result<ReconcileResult> Agent::ReconcileNewer(const api::Sandbox& sandbox) {
  const std::string message =
      "the record of it on " + options_.node_name +
      " is of a newer agent: it and its VM are left alone until that is back";
  api::SandboxStatus status = sandbox.status;
  std::erase_if(status.conditions, [](const api::Condition& condition) {
    return condition.type == api::condition::kScheduled;  // the controller's
  });
  api::SetCondition(&status.conditions,
                    {api::condition::kReady,
                     api::ConditionStatus::kUnknown,
                     std::string(reasons::kAgentTooOld),
                     message,
                     sandbox.meta.generation,
                     {}},
                    clock_.WallNow());
  if (api::AgentStatusToJson(status) == api::AgentStatusToJson(sandbox.status))
    return ReconcileResult::Done();
  DORMOUSE_ASSIGN(const auto written, control_plane_.WriteStatus(sandbox, status));
  control_plane_.Event(sandbox, true, reasons::kAgentTooOld, message);
  if (written) NoteWritten(*written, JsonText(api::AgentStatusToJson(status)));
  return ReconcileResult::Done();
}

Result<ReconcileResult> Agent::ReconcileDeletion(const api::Sandbox& cached) {
  // Nothing is destroyed on the word of a cache (invariant 8).
  DORMOUSE_ASSIGN(const auto live, control_plane_.ReadLive(cached.meta.key()));
  auto record = records_.Find(cached.uid);
  if (!live || live->uid != cached.uid) {
    if (record) return ReconcileOrphan(*record);
    return ReconcileResult::Done();
  }
  if (!live->meta.deletion_time) return ReconcileResult::RequeueAfter(1s);
  if (!record) {
    // Never begun here, or released before and not yet told; or its record was unreadable.
    record.emplace();
    record->cluster_id = records_.cluster_id();
    record->uid = live->uid;
    record->ns = live->meta.ns;
    record->name = live->meta.name;
    record->intent = Intent::kRelease;
    DORMOUSE_ASSIGN(const Observed seen, machine_.Observe(*record));
    if (NothingLeft(seen) && !records_.IsCorrupt(live->uid)) {
      StatusInputs in;
      in.record = *record;
      in.outcome = Outcome::kReleased;
      in.released = true;
      return Tell(*live, std::move(in)).map([] { return ReconcileResult::Done(); });
    }
  }
  return Drive(*live, std::move(*record), false);
}

Result<ReconcileResult> Agent::ReconcileOrphan(const Record& found) {
  Record record = found;
  DORMOUSE_ASSIGN(const auto live, control_plane_.ReadLive(record.key()));
  if (live && live->uid == record.uid && live->status.node_name == options_.node_name) {
    return ReconcileResult::RequeueAfter(1s);  // the cache is behind
  }
  const WallTime now = clock_.WallNow();
  if (!record.orphaned_at) {
    log::Warning(
        "the object of a sandbox is gone; its VM is stopped and its files are kept for a while",
        {{"sandbox", record.key().ToString()}, {"uid", record.uid.text()}});
    record.orphaned_at = now;
    // Its object may come back: ReconcileWanted tells this from one that has ended by its ending.
    if (record.intent == Intent::kRun) {
      record.intent = record.sleeping ? Intent::kSuspended : Intent::kStopped;
      record.ending.reset();
      record.ForgetRun();
    }
    DORMOUSE_TRY(records_.Save(record));
  }
  Desired desired;
  desired.deleting = now - *record.orphaned_at >= options_.orphan_retention;
  desired.mode = api::OperatingMode::kSuspended;  // one that sleeps is not woken
  DORMOUSE_ASSIGN(const Observed seen, machine_.Observe(record));
  const Plan plan = MakePlan(record, desired, seen, now, options_.limits);
  std::optional<Step> failed;
  DORMOUSE_TRY(Carry(plan, {}, &record, &failed));
  if (desired.deleting) return ReconcileResult::Done();
  return ReconcileResult::RequeueAfter(*record.orphaned_at + options_.orphan_retention - now);
}

}  // namespace dormouse
