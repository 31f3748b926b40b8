// What the agent shows of itself: the AgentView side of Agent.
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "node-agent/sandbox/agent.h"
#include "src/common/api/reasons.h"
#include "src/common/base/json_text.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

using nlohmann::json;

std::string_view PresenceName(Presence presence) {
  static constexpr std::string_view kNames[] = {"absent", "partial", "complete"};
  return kNames[static_cast<size_t>(presence)];
}

std::string_view VmmStateName(VmmState state) {
  static constexpr std::string_view kNames[] = {"absent",  "silent", "starting", "created",
                                                "running", "paused", "foreign"};
  static_assert(std::size(kNames) == static_cast<size_t>(VmmState::kForeign) + 1);
  return kNames[static_cast<size_t>(state)];
}

std::string_view GuestStateName(GuestState state) {
  static constexpr std::string_view kNames[] = {"unknown", "silent",        "protocol-violation",
                                                "frozen",  "answering",     "configured",
                                                "working", "workload-ended"};
  static_assert(std::size(kNames) == static_cast<size_t>(GuestState::kWorkloadEnded) + 1);
  return kNames[static_cast<size_t>(state)];
}

}  // namespace

Result<Record> Agent::FindByKey(const kube::ObjectKey& key) const {
  // A name may have had a predecessor that is still being released: the one that is not, comes
  // first.
  std::optional<Record> found;
  for (Record& record : records_.All()) {
    if (record.key() == key && (!found || found->intent == Intent::kRelease))
      found = std::move(record);
  }
  if (!found)
    return Fail(ErrorCode::kNotFound,
                "no sandbox " + key.ToString() + " on node " + options_.node_name);
  return std::move(*found);
}

std::vector<SandboxSummary> Agent::List() const {
  std::vector<SandboxSummary> all;
  for (const Record& record : records_.All()) {
    const Told told = Recall(record.uid, [](const Remembered& kept) { return kept.told; });
    SandboxSummary summary;
    summary.uid = record.uid.text();
    summary.short_id = record.uid.short_id();
    summary.ns = record.ns;
    summary.name = record.name;
    summary.phase = told.phase;
    summary.ready_reason = told.ready_reason;
    summary.image = record.image_name;
    summary.incarnation = record.incarnation;
    summary.restart_count = record.restart_count;
    summary.vcpus = record.resources.vcpus;
    summary.memory_bytes = record.resources.memory_bytes;
    summary.disk_bytes = record.disk_bytes;
    summary.host_address = machine_.HostAddress(record);
    if (told.disk) {
      summary.disk_allocated_bytes = told.disk->allocated_bytes;
      summary.disk_used_bytes = told.disk->used_bytes;
    }
    summary.started_at = record.started_at;
    summary.running = record.intent == Intent::kRun && record.vmm.has_value();
    summary.pid = summary.running ? record.vmm->pid : 0;
    all.push_back(std::move(summary));
  }
  for (const api::SandboxUid& uid : records_.Newer()) {
    SandboxSummary summary;
    summary.uid = uid.text();
    summary.short_id = uid.short_id();
    if (const auto cached = sandboxes_.GetByUid(uid.text())) {
      summary.ns = cached->meta.ns;
      summary.name = cached->meta.name;
    }
    summary.ready_reason = api::reasons::kAgentTooOld;
    all.push_back(std::move(summary));
  }
  return all;
}

Result<std::string> Agent::Show(const kube::ObjectKey& key) const {
  DORMOUSE_ASSIGN(const Record record, FindByKey(key));
  json shown;
  shown["record"] = json::parse(EncodeRecord(record)).at("record");
  shown["plan"] = Recall(record.uid, [](const Remembered& kept) { return kept.plan; });
  if (const auto seen = machine_.Observe(record)) {
    shown["kernel"] = {{"disk", PresenceName(seen->disk)},
                       {"diskLost", seen->disk_lost},
                       {"network", PresenceName(seen->net)},
                       {"cgroup", seen->cgroup},
                       {"vmmDirectory", seen->vmm_directory}};
    shown["vmm"] = {{"state", VmmStateName(seen->vmm)}};
    shown["guest"] = {{"state", GuestStateName(seen->guest)}};
  } else {
    shown["kernel"] = {{"error", seen.error().message()}};
  }
  shown["vmm"]["hypervisor"] = machine_.Vmm().name + " " + machine_.Vmm().version;
  shown["console"] = machine_.ConsoleTail(record, 10);
  if (const auto cached = sandboxes_.GetByUid(record.uid.text())) {
    shown["api"] = {{"resourceVersion", cached->meta.resource_version.text()},
                    {"generation", cached->meta.generation},
                    {"deleting", cached->meta.deletion_time.has_value()},
                    {"phase", cached->status.phase},
                    {"status", api::AgentStatusToJson(cached->status)}};
  } else {
    shown["api"] = nullptr;
  }
  return JsonText(shown, 2);
}

Result<GuestAccess> Agent::Guest(const kube::ObjectKey& key) const {
  DORMOUSE_ASSIGN(const Record record, FindByKey(key));
  if (record.intent != Intent::kRun || !record.vmm) {
    return Fail(ErrorCode::kUnavailable, "sandbox " + key.ToString() + " does not run");
  }
  // A clone is its source, or nobody, until it was told who it is.
  if (record.sleeping)
    return Fail(ErrorCode::kUnavailable, "sandbox " + key.ToString() + " is not awake yet");
  return GuestAccess{record.uid.text(), machine_.VsockSocket(record), idle_.Open(record.uid)};
}

Result<std::string> Agent::ConsoleTail(const kube::ObjectKey& key, size_t lines) const {
  DORMOUSE_ASSIGN(const Record record, FindByKey(key));
  return machine_.ConsoleTail(record, lines);
}

Result<std::vector<OwnedObject>> Agent::FindLeaks() {
  // The kernel first, the records second: a record is written before anything is made for it.
  DORMOUSE_ASSIGN(auto owned, machine_.ListOwned());
  std::set<std::string> known;
  for (const api::SandboxUid& uid : records_.KnownUids()) known.insert(uid.short_id());
  std::erase_if(owned, [&](const OwnedObject& item) {
    return item.short_id.empty() || known.contains(item.short_id);
  });
  return owned;
}

Result<std::vector<Leak>> Agent::Sweep(bool remove) {
  DORMOUSE_ASSIGN(auto leaks, FindLeaks());
  if (remove) {
    std::set<std::string> ids;
    for (const OwnedObject& item : leaks) ids.insert(item.short_id);
    for (const std::string& id : ids) {
      if (auto removed = machine_.RemoveOwned(id); !removed) {
        log::Warning("what no sandbox accounts for could not be removed",
                     {{"short_id", id}, {"error", removed.error().message()}});
      }
    }
    std::vector<std::string> digests;
    for (const Record& record : records_.All()) digests.push_back(record.image_digest);
    for (const auto& each : templates_.All()) digests.push_back(each->image_digest);
    // What a record names that is not ours to read is not known.
    if (records_.AllRead() && templates_.AllRead()) DORMOUSE_TRY(machine_.CollectBases(digests));
    DORMOUSE_ASSIGN(leaks, FindLeaks());
  }
  std::vector<Leak> found;
  for (OwnedObject& item : leaks) found.push_back(std::move(item.object));
  return found;
}

}  // namespace dormouse
