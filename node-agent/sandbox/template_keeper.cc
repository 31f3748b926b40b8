#include "node-agent/sandbox/template_keeper.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "src/common/api/reasons.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

using namespace std::chrono_literals;
using kube::ReconcileResult;
namespace reasons = api::reasons;

// How long until holders that go without a word of theirs are noticed, and a source that comes.
constexpr auto kLookAgain = 5s;
// Nobody tells when what it runs on goes from the node, or is back.
constexpr auto kJudgeAgain = 1min;

bool HasFailed(const api::SnapshotTemplate& object) {
  return api::IsTrue(object.status.conditions, api::condition::kFailed);
}

}  // namespace

TemplateKeeper::TemplateKeeper(AgentOptions options, Agent& agent, Machine& machine,
                               RecordStore& records, TemplateStore& templates,
                               kube::Store<api::SnapshotTemplate>& objects,
                               kube::Store<api::Sandbox>& sandboxes,
                               TemplateControlPlane& control_plane, const Clock& clock)
    : options_(std::move(options)),
      agent_(agent),
      machine_(machine),
      records_(records),
      templates_(templates),
      objects_(objects),
      own_writes_(objects),
      sandboxes_(sandboxes),
      control_plane_(control_plane),
      clock_(clock) {}

std::vector<std::string> TemplateKeeper::KnownUids() const {
  std::vector<std::string> uids;
  for (const auto& record : templates_.All()) {
    if (!record->IsBootSnapshot()) uids.push_back(record->uid.text());
  }
  for (const auto& object : objects_.List()) uids.push_back(object->meta.uid);
  std::sort(uids.begin(), uids.end());
  uids.erase(std::unique(uids.begin(), uids.end()), uids.end());
  return uids;
}

std::vector<std::string> TemplateKeeper::HoldersOf(const api::SandboxUid& uid,
                                                   const kube::ObjectKey& key) const {
  std::set<std::string> holders;
  // Those without a record first: one that is saved meanwhile is then found among the records.
  for (const auto& sandbox : sandboxes_.List()) {
    const bool named = sandbox->meta.ns == key.ns && sandbox->spec.snapshot_template == key.name;
    if (named && !sandbox->meta.deletion_time && !records_.Find(sandbox->uid))
      holders.insert(sandbox->meta.name);
  }
  for (const Record& record : records_.All()) {
    if (record.NeedsTemplate() && record.origin->template_uid == uid) holders.insert(record.name);
  }
  return {holders.begin(), holders.end()};
}

Result<ReconcileResult> TemplateKeeper::Reconcile(const std::string& uid_text) {
  DORMOUSE_ASSIGN(const auto uid, api::SandboxUid::Parse(uid_text));
  const bool ahead = own_writes_.AreAhead(uid_text);
  const auto cached = objects_.GetByUid(uid_text);
  if (templates_.IsNewer(uid)) return cached ? ReconcileNewer(*cached) : ReconcileResult::Done();
  if (!cached) {
    {
      const std::lock_guard lock(mutex_);
      latest_.erase(uid_text);
    }
    // Somebody took its finalizer away: no deletion was ever seen, and its source would be captured
    // for ever. A capture that is under way says when it has given up.
    if (!agent_.DropCapture(uid)) return ReconcileResult::Done();
    const auto record = templates_.Find(uid);
    if (record == nullptr || record->IsBootSnapshot()) return ReconcileResult::Done();
    return ReconcileOrphan(*record);
  }
  api::SnapshotTemplate object = *cached;
  {
    const std::lock_guard lock(mutex_);
    const auto ours = latest_.find(uid_text);
    if (ours != latest_.end() && ahead) object = ours->second;
    if (ours != latest_.end() && !ahead) latest_.erase(ours);
  }
  return object.meta.deletion_time ? ReconcileDeletion(object, uid) : ReconcileWanted(object, uid);
}

Result<ReconcileResult> TemplateKeeper::ReconcileWanted(const api::SnapshotTemplate& object,
                                                        const api::SandboxUid& uid) {
  if (const auto record = templates_.Find(uid)) {
    TemplateStatusInputs in;
    in.record = record.get();
    in.holders = HoldersOf(uid, object.meta.key());
    in.damaged = agent_.DamageOf(uid, 0);
    in.incompatible = memory::Incompatibility(NeedsOf(*record), machine_.Offer());
    DORMOUSE_TRY(Tell(object, std::move(in)));
    return ReconcileResult::RequeueAfter(kJudgeAgain);
  }
  if (HasFailed(object)) return ReconcileResult::Done();
  if (templates_.IsCorrupt(uid)) {
    return GiveUp(object, uid,
                  {std::string(reasons::kRecordCorrupt),
                   "the node's record of this template is damaged; its files are kept"});
  }
  return AskSource(object, uid);
}

Result<ReconcileResult> TemplateKeeper::AskSource(const api::SnapshotTemplate& object,
                                                  const api::SandboxUid& uid) {
  const auto failure = agent_.CaptureFailure(uid);
  const auto source = sandboxes_.Get({object.meta.ns, object.source});
  const bool finalized = object.meta.HasFinalizer(api::kCleanupFinalizer);
  const bool here =
      finalized && source && records_.Find(source->uid) && !source->meta.deletion_time;
  TemplateStatusInputs in;
  in.capturing = here;
  if (!finalized) {
    in.waiting = Problem{std::string(reasons::kNotFinalized),
                         "it has a node and no finalizer: the controller did not place it"};
  } else if (!here) {
    in.waiting = Problem{std::string(reasons::kSourceNotReady),
                         "the sandbox " + object.source + " does not run on this node"};
  } else if (failure) {
    in.waiting =
        Problem{std::string(reasons::kSnapshotFailed), failure->message() + "; it is tried again"};
  } else if (!records_.Find(source->uid)->started_at && !records_.Find(source->uid)->sleeping) {
    in.waiting = Problem{std::string(reasons::kSourceNotReady),
                         "the sandbox " + object.source + " has no memory yet"};
  }
  const auto left = object.meta.creation_time + object.failure_deadline - clock_.WallNow();
  if (left <= 0s) {
    const std::string why = in.waiting ? ": " + in.waiting->message : "";
    return GiveUp(object, uid,
                  {in.waiting ? in.waiting->reason : std::string(reasons::kSnapshotFailed),
                   "it was not captured within its failureDeadline" + why});
  }
  if (here) agent_.WantCapture(source->uid, uid, object.meta.key());
  DORMOUSE_TRY(Tell(object, std::move(in)));
  return ReconcileResult::RequeueAfter(std::min<std::chrono::nanoseconds>(
      kLookAgain, std::max<std::chrono::nanoseconds>(left, 1ms)));
}

Result<ReconcileResult> TemplateKeeper::GiveUp(const api::SnapshotTemplate& object,
                                               const api::SandboxUid& uid, Problem problem) {
  // One that is under way may still come to its commit, or have come to it since we looked.
  if (!agent_.DropCapture(uid) || templates_.Find(uid)) return ReconcileResult::RequeueAfter(1s);
  TemplateStatusInputs in;
  in.failed = std::move(problem);
  DORMOUSE_TRY(Tell(object, std::move(in)));
  return ReconcileResult::Done();
}

Result<ReconcileResult> TemplateKeeper::ReconcileDeletion(const api::SnapshotTemplate& cached,
                                                          const api::SandboxUid& uid) {
  const bool written_to = !agent_.DropCapture(uid);
  // Nothing is destroyed on the word of a cache (invariant 8).
  DORMOUSE_ASSIGN(const auto live, control_plane_.ReadLive(cached.meta.key()));
  if (!live || live->meta.uid != cached.meta.uid) return ReconcileResult::RequeueAfter(1s);
  if (!live->meta.deletion_time) return ReconcileResult::RequeueAfter(1s);
  TemplateStatusInputs in;
  // A copy: what is held is not removed.
  std::optional<TemplateRecord> last;
  if (const auto record = templates_.Find(uid)) last = *record;
  in.record = last ? &*last : nullptr;
  if (last) in.incompatible = memory::Incompatibility(NeedsOf(*last), machine_.Offer());
  in.holders = HoldersOf(uid, live->meta.key());
  if (written_to || !in.holders.empty()) {
    DORMOUSE_TRY(Tell(*live, std::move(in)));
    return ReconcileResult::RequeueAfter(kLookAgain);
  }
  if (live->deletion_policy == api::DeletionPolicy::kRetain && last) {
    last->retained = true;
    DORMOUSE_TRY(templates_.Save(*last));
  } else if (auto removed = templates_.Remove(uid); !removed) {
    if (removed.error().code() == ErrorCode::kBusy) return ReconcileResult::RequeueAfter(1s);
    return Fail(removed.error());
  }
  in.released = true;
  DORMOUSE_TRY(Tell(*live, std::move(in)));
  const std::lock_guard lock(mutex_);
  latest_.erase(uid.text());
  return ReconcileResult::Done();
}

Result<ReconcileResult> TemplateKeeper::ReconcileOrphan(const TemplateRecord& found) {
  if (found.retained) return ReconcileResult::Done();
  const kube::ObjectKey key{found.ns, found.name};
  DORMOUSE_ASSIGN(const auto live, control_plane_.ReadLive(key));
  if (live && live->meta.uid == found.uid.text()) return ReconcileResult::RequeueAfter(1s);
  TemplateRecord record = found;
  const WallTime now = clock_.WallNow();
  if (!record.orphaned_at) {
    log::Warning("the object of a template is gone; its files are kept for a while",
                 {{"template", key.ToString()}, {"uid", record.uid.text()}});
    record.orphaned_at = now;
    DORMOUSE_TRY(templates_.Save(record));
  }
  const auto left = *record.orphaned_at + options_.orphan_retention - now;
  if (left > 0s) return ReconcileResult::RequeueAfter(left);
  if (!HoldersOf(record.uid, key).empty()) return ReconcileResult::RequeueAfter(60s);
  DORMOUSE_TRY(templates_.Remove(record.uid));
  return ReconcileResult::Done();
}

Result<ReconcileResult> TemplateKeeper::ReconcileNewer(const api::SnapshotTemplate& object) {
  const std::string message = "the record of it on " + options_.node_name +
                              " is of a newer agent: it is left alone until that is back";
  api::SnapshotTemplateStatus status = object.status;
  api::SetCondition(&status.conditions,
                    {api::condition::kReady,
                     api::ConditionStatus::kUnknown,
                     std::string(reasons::kAgentTooOld),
                     message,
                     object.meta.generation,
                     {}},
                    clock_.WallNow());
  if (api::AgentStatusToJson(status) == api::AgentStatusToJson(object.status))
    return ReconcileResult::Done();
  DORMOUSE_TRY(control_plane_.WriteStatus(object, status));
  control_plane_.Event(object, true, reasons::kAgentTooOld, message);
  return ReconcileResult::Done();
}

Result<> TemplateKeeper::Tell(const api::SnapshotTemplate& object, TemplateStatusInputs in) {
  in.node_name = options_.node_name;
  const api::SnapshotTemplateStatus status = ComputeTemplateStatus(object, in, clock_.WallNow());
  if (api::AgentStatusToJson(status) == api::AgentStatusToJson(object.status)) return {};
  const bool was_ready = api::IsTrue(object.status.conditions, api::condition::kReady);
  if (status.ready_to_use && !was_ready) {
    control_plane_.Event(object, false, reasons::kCaptured,
                         "captured from " + object.source + ", which stood still for " +
                             std::to_string(status.pause_window.value_or(0ms).count()) + " ms");
  } else if (in.failed && !HasFailed(object)) {
    control_plane_.Event(object, true, in.failed->reason, in.failed->message);
  }
  if (in.damaged && was_ready && !status.ready_to_use)
    control_plane_.Event(object, true, reasons::kResumeFailed, *in.damaged);
  if (in.incompatible && api::IsTrue(object.status.conditions, api::condition::kCompatible))
    control_plane_.Event(object, true, reasons::kSnapshotIncompatible, *in.incompatible);
  DORMOUSE_ASSIGN(auto written, control_plane_.WriteStatus(object, status));
  if (written) own_writes_.Wrote(object.meta.uid, written->meta.resource_version);
  const std::lock_guard lock(mutex_);
  if (written) {
    latest_[object.meta.uid] = std::move(*written);
  } else {
    latest_.erase(object.meta.uid);
  }
  return {};
}

}  // namespace dormouse
