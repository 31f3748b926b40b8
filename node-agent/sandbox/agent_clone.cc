// Templates, boot snapshots and clones, as the agent decides on them; the files are the machine's.
#include <algorithm>

#include "node-agent/sandbox/agent.h"
#include "src/common/api/spec_check.h"
#include "src/common/base/log.h"

namespace dormouse {

Result<Record> Agent::Resolve(const api::Sandbox& sandbox, TemplateStore::Ptr* held) {
  DORMOUSE_TRY(api::CheckSpec(sandbox.spec));
  if (!sandbox.spec.snapshot_template.empty()) {
    *held = templates_.FindByName(sandbox.meta.ns, sandbox.spec.snapshot_template);
    if (*held == nullptr) {
      return Fail(ErrorCode::kNotFound, "node " + options_.node_name +
                                            " does not hold the SnapshotTemplate " +
                                            sandbox.spec.snapshot_template);
    }
    if (const auto why = Contradiction(sandbox.spec, **held))
      return Fail(ErrorCode::kInvalid, *why);
    return CloneOf(**held);
  }
  DORMOUSE_ASSIGN(Record record, machine_.Resolve(sandbox));
  record.ns = sandbox.meta.ns;
  if (const auto uid = BootSnapshotOf(sandbox.spec, record)) {
    *held = templates_.Find(*uid);
    if (*held != nullptr) {
      const std::lock_guard lock(mutex_);
      boot_snapshot_used_[*uid] = clock_.Now();
      record = CloneOf(**held);
    }
  }
  return record;
}

std::optional<api::SandboxUid> Agent::BootSnapshotOf(const api::SandboxSpec& spec,
                                                     const Record& record) const {
  if (!spec.boot_snapshot || options_.boot_snapshots == BootSnapshots::kOff) return std::nullopt;
  const bool shared = options_.boot_snapshots == BootSnapshots::kNode;
  return BootSnapshotUid(record, shared ? "" : record.ns, machine_.BootTraits());
}

std::optional<TemplateCapture> Agent::CaptureWantedFrom(const api::SandboxSpec& spec,
                                                        const Record& record) {
  if (disk_state_ == Machine::DiskState::kFull) return std::nullopt;  // it writes memory
  const std::lock_guard lock(mutex_);
  const auto is_fresh = [this](const api::SandboxUid& uid) {
    const auto found = remembered_.find(uid);
    return found != remembered_.end() && found->second.vmm.IsFresh();
  };
  if (is_fresh(record.uid) && disk_state_ == Machine::DiskState::kFine) {
    const auto shape = BootSnapshotOf(spec, record);
    if (shape && templates_.Find(*shape) == nullptr && !templates_.IsNewer(*shape)) {
      // One sandbox makes it; the others of its shape that boot just now do not wait.
      api::SandboxUid& maker = boot_captures_.try_emplace(*shape, record.uid).first->second;
      if (!is_fresh(maker)) maker = record.uid;
      if (maker == record.uid) return TemplateCapture{*shape, true, {}};
    }
  }
  for (const auto& [uid, wanted] : wanted_) {
    if (wanted.source == record.uid && clock_.Now() >= wanted.not_before)
      return TemplateCapture{uid, false, {}};
  }
  return std::nullopt;
}

void Agent::WantCapture(const api::SandboxUid& source, const api::SandboxUid& template_uid,
                        const kube::ObjectKey& template_key) {
  {
    const std::lock_guard lock(mutex_);
    // Captured since the caller looked: once more would begin by removing it.
    if (templates_.Find(template_uid)) return;
    WantedCapture& wanted = wanted_[template_uid];
    if (wanted.under_way) return;
    wanted.source = source;
    wanted.key = template_key;
  }
  enqueue_(source.text());
}

bool Agent::DropCapture(const api::SandboxUid& template_uid) {
  const std::lock_guard lock(mutex_);
  const auto found = wanted_.find(template_uid);
  if (found == wanted_.end()) return true;
  if (found->second.under_way) {
    found->second.dropped = true;
    return false;
  }
  wanted_.erase(found);
  return true;
}

std::optional<Error> Agent::CaptureFailure(const api::SandboxUid& template_uid) const {
  const std::lock_guard lock(mutex_);
  const auto found = wanted_.find(template_uid);
  return found == wanted_.end() ? std::nullopt : found->second.failure;
}

Result<> Agent::GoOnCapturing(const TemplateCapture& capture) {
  if (capture.boot_snapshot) return {};
  const std::lock_guard lock(mutex_);
  const auto found = wanted_.find(capture.template_uid);
  if (found == wanted_.end() || found->second.dropped)
    return Fail(ErrorCode::kNotFound, "the template is not wanted any more");
  found->second.under_way = true;
  return {};
}

Result<> Agent::CommitTemplate(const api::SandboxSpec& spec, Record* record) {
  const TemplateCapture capture = *record->capture_for;
  TemplateRecord made = TemplateOf(*record);
  made.uid = capture.template_uid;
  made.figures = capture.figures;
  made.captured_at = clock_.WallNow();
  made.vmm_name = machine_.Vmm().name;
  DORMOUSE_ASSIGN(const auto needs, machine_.NeedsOfCapture(*record));
  made.vmm_version = needs.vmm_version;
  made.cpu_model = needs.cpu_model;
  made.guest_version = needs.guest_version;
  if (capture.boot_snapshot) {
    if (options_.boot_snapshots == BootSnapshots::kNamespace) made.ns = record->ns;
  } else {
    const std::lock_guard lock(mutex_);
    const auto wanted = wanted_.find(capture.template_uid);
    if (wanted == wanted_.end()) return Fail(ErrorCode::kNotFound, "the template is gone");
    made.ns = wanted->second.key.ns;
    made.name = wanted->second.key.name;
    made.has_workload = !spec.workload.empty() || (record->origin && record->origin->has_workload);
  }
  DORMOUSE_TRY(templates_.Commit(made));
  record->capture_for.reset();
  // Of one that sleeps its files are copied: no machine stood still, and no memory was written.
  if (!record->sleeping)
    CountCapture(capture.boot_snapshot ? "boot_snapshot" : "template", made.figures);
  log::Info(capture.boot_snapshot ? "a boot snapshot was made" : "a template was captured",
            {{"sandbox", record->key().ToString()},
             {"template", capture.template_uid.text()},
             {"bytes", made.AllocatedBytes()},
             {"pauseMs", made.figures.pause_window_ms}});
  {
    const std::lock_guard lock(mutex_);
    if (capture.boot_snapshot) {
      boot_captures_.erase(capture.template_uid);
      boot_snapshot_used_[capture.template_uid] = clock_.Now();
    } else {
      wanted_.erase(capture.template_uid);
    }
  }
  if (capture.boot_snapshot) {
    TrimBootSnapshots(options_.boot_snapshot_bytes);
  } else {
    template_changed_(capture.template_uid.text());
  }
  return {};
}

void Agent::TemplateCaptureFailed(const Record& record, const Error& error) {
  const TemplateCapture& capture = *record.capture_for;
  templates_.Discard(capture.template_uid);
  log::Warning(capture.boot_snapshot ? "no boot snapshot was made"
                                     : "a template's capture failed; its source is as it was",
               {{"sandbox", record.key().ToString()},
                {"template", capture.template_uid.text()},
                {"error", error.message()}});
  if (capture.boot_snapshot) {
    Remember(record.uid, [](Remembered& kept) { kept.vmm.ToldItsTenant(); });
    const std::lock_guard lock(mutex_);
    boot_captures_.erase(capture.template_uid);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    const auto found = wanted_.find(capture.template_uid);
    if (found != wanted_.end()) {
      found->second.under_way = false;
      // What it gave up for is no reason why it had not been captured before.
      if (!found->second.dropped) found->second.failure = error;
      found->second.not_before =
          clock_.Now() + DelayAfter(found->second.failures++, options_.capture_retry);
    }
  }
  template_changed_(capture.template_uid.text());
}

Result<> Agent::GiveUpBootSnapshot(Record* record) {
  const api::SandboxUid uid = record->origin->template_uid;
  record->BootInstead();
  DORMOUSE_TRY(records_.Save(*record));
  if (NeededTemplates().contains(uid)) return {};
  if (auto removed = templates_.Remove(uid); !removed) {
    log::Warning("a boot snapshot stays",
                 {{"template", uid.text()}, {"error", removed.error().message()}});
  }
  return {};
}

std::set<api::SandboxUid> Agent::NeededTemplates() const {
  std::set<api::SandboxUid> needed;
  for (const Record& record : records_.All()) {
    if (record.NeedsTemplate()) needed.insert(record.origin->template_uid);
  }
  return needed;
}

void Agent::TrimBootSnapshots(int64_t bytes) {
  const std::set<api::SandboxUid> needed = NeededTemplates();
  struct Candidate {
    MonotonicTime used;
    api::SandboxUid uid;
    int64_t bytes;
  };
  std::vector<Candidate> unused;
  int64_t total = 0;
  for (const TemplateStore::Ptr& each : templates_.All()) {
    if (!each->IsBootSnapshot()) continue;
    total += each->AllocatedBytes();
    if (needed.contains(each->uid)) continue;
    const std::lock_guard lock(mutex_);
    const auto used = boot_snapshot_used_.find(each->uid);
    unused.push_back({used == boot_snapshot_used_.end() ? MonotonicTime{} : used->second, each->uid,
                      each->AllocatedBytes()});
  }
  std::sort(unused.begin(), unused.end(),
            [](const Candidate& a, const Candidate& b) { return a.used < b.used; });
  for (const Candidate& each : unused) {
    if (total <= bytes) return;
    // Held: a clone is just being made of it.
    if (!templates_.Remove(each.uid)) continue;
    total -= each.bytes;
    log::Info("a boot snapshot made room", {{"template", each.uid.text()}, {"bytes", each.bytes}});
  }
}

void Agent::TellTemplate(const Record& record) {
  if (record.origin && !record.origin->boot_snapshot)
    template_changed_(record.origin->template_uid.text());
}

}  // namespace dormouse
