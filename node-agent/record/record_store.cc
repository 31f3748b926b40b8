#include "node-agent/record/record_store.h"

#include <unistd.h>

#include <set>

#include "src/common/base/files.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

constexpr size_t kMaxRecordBytes = 1 << 20;

}  // namespace

Result<RecordStore::Loaded> RecordStore::Load() {
  DORMOUSE_TRY(MakeDirectories(paths_.Sandboxes()));
  DORMOUSE_TRY(MakeDirectories(paths_.Quarantine()));
  DORMOUSE_ASSIGN(const auto names, ListDirectory(paths_.Sandboxes()));
  Loaded loaded;
  for (const std::string& name : names) {
    const auto uid = api::SandboxUid::Parse(name);
    if (!uid) {
      log::Warning("a directory among the sandboxes is none", {{"name", name}});
      continue;
    }
    auto text = ReadFile(paths_.Record(*uid), kMaxRecordBytes);
    if (!text && text.error().code() == ErrorCode::kNotFound) {
      // Killed before the first record was written, or after the last of it was removed: nothing
      // was made but what is in here.
      DORMOUSE_TRY(RemoveTree(paths_.Sandbox(*uid)));
      continue;
    }
    auto record = text ? DecodeRecord(*text) : Result<Record>(Fail(text.error()));
    if (record && record->uid != *uid)
      record = Fail(ErrorCode::kCorrupt, "record of another sandbox");
    std::lock_guard lock(mutex_);
    if (!record && record.error().code() == ErrorCode::kUnsupported) {
      log::Error("a record is left alone, and its sandbox: only a newer agent may write it",
                 {{"uid", name}, {"error", record.error().message()}});
      unusable_[*uid] = Unusable::kNewer;
      if (const auto slot = SlotIn(*text)) slots_[*uid] = *slot;
      loaded.newer.push_back(*uid);
    } else if (!record) {
      log::Error("a record is unreadable, and quarantined",
                 {{"uid", name}, {"error", record.error().message()}});
      DORMOUSE_TRY(Quarantine(*uid));
      unusable_[*uid] = Unusable::kCorrupt;
      loaded.corrupt.push_back(*uid);
    } else if (record->cluster_id != cluster_id_) {
      log::Warning("a record of another cluster is left alone",
                   {{"uid", name}, {"cluster", record->cluster_id}});
      unusable_[*uid] = Unusable::kForeign;
      slots_[*uid] = record->slot;
      loaded.foreign.push_back(*uid);
    } else {
      slots_[*uid] = record->slot;
      records_.emplace(*uid, std::move(*record));
    }
  }
  return loaded;
}

Result<> RecordStore::Quarantine(const api::SandboxUid& uid) {
  // A link, so that the next start finds the damaged record again and goes on reporting it.
  const std::string kept = paths_.Quarantine() + "/" + uid.text() + ".json";
  if (::link(paths_.Record(uid).c_str(), kept.c_str()) != 0 && errno != EEXIST)
    return FailErrno("link " + kept);
  return {};
}

void RecordStore::PinSlot(const api::SandboxUid& uid, uint32_t slot) {
  std::lock_guard lock(mutex_);
  slots_[uid] = slot;
}

std::optional<Record> RecordStore::Find(const api::SandboxUid& uid) const {
  std::lock_guard lock(mutex_);
  const auto found = records_.find(uid);
  if (found == records_.end()) return std::nullopt;
  return found->second;
}

std::vector<Record> RecordStore::All() const {
  std::lock_guard lock(mutex_);
  std::vector<Record> all;
  all.reserve(records_.size());
  for (const auto& [uid, record] : records_) all.push_back(record);
  return all;
}

std::vector<api::SandboxUid> RecordStore::KnownUids() const {
  std::lock_guard lock(mutex_);
  std::vector<api::SandboxUid> uids;
  for (const auto& [uid, record] : records_) uids.push_back(uid);
  for (const auto& [uid, why] : unusable_) uids.push_back(uid);
  return uids;
}

bool RecordStore::Is(Unusable what, const api::SandboxUid& uid) const {
  std::lock_guard lock(mutex_);
  const auto found = unusable_.find(uid);
  return found != unusable_.end() && found->second == what;
}

bool RecordStore::IsCorrupt(const api::SandboxUid& uid) const {
  return Is(Unusable::kCorrupt, uid);
}

bool RecordStore::IsForeign(const api::SandboxUid& uid) const {
  return Is(Unusable::kForeign, uid);
}

bool RecordStore::IsNewer(const api::SandboxUid& uid) const {
  return Is(Unusable::kNewer, uid);
}

std::vector<api::SandboxUid> RecordStore::Newer() const {
  std::lock_guard lock(mutex_);
  std::vector<api::SandboxUid> uids;
  for (const auto& [uid, why] : unusable_) {
    if (why == Unusable::kNewer) uids.push_back(uid);
  }
  return uids;
}

bool RecordStore::AllRead() const {
  std::lock_guard lock(mutex_);
  return unusable_.empty();
}

Result<> RecordStore::Save(const Record& record) {
  const std::string directory = paths_.Sandbox(record.uid);
  bool is_new = false;
  {
    std::lock_guard lock(mutex_);
    is_new = !records_.contains(record.uid);
  }
  if (is_new) DORMOUSE_TRY(MakeDirectories(directory));
  DORMOUSE_TRY(WriteFileAtomically(paths_.Record(record.uid), EncodeRecord(record)));
  // After the record, whose own fsync has mostly taken the new name with it.
  if (is_new) DORMOUSE_TRY(SyncDirectory(paths_.Sandboxes()));
  std::lock_guard lock(mutex_);
  slots_[record.uid] = record.slot;
  records_.insert_or_assign(record.uid, record);
  return {};
}

Result<Record> RecordStore::ReadBack(const api::SandboxUid& uid) const {
  DORMOUSE_ASSIGN(const std::string text, ReadFile(paths_.Record(uid), kMaxRecordBytes));
  return DecodeRecord(text);
}

Result<> RecordStore::Remove(const api::SandboxUid& uid) {
  DORMOUSE_ASSIGN(const auto names, ListDirectory(paths_.Sandbox(uid)));
  for (const std::string& name : names) {
    if (name != "record.json") DORMOUSE_TRY(RemoveTree(paths_.Sandbox(uid) + "/" + name));
  }
  DORMOUSE_TRY(RemoveTree(paths_.Sandbox(uid)));
  DORMOUSE_TRY(SyncDirectory(paths_.Sandboxes()));
  std::lock_guard lock(mutex_);
  records_.erase(uid);
  slots_.erase(uid);
  unusable_.erase(uid);
  return {};
}

Result<> RecordStore::DropUnrecorded(const api::SandboxUid& uid) {
  {
    std::lock_guard lock(mutex_);
    if (records_.contains(uid) || unusable_.contains(uid)) return {};
  }
  DORMOUSE_TRY(RemoveTree(paths_.Sandbox(uid)));
  std::lock_guard lock(mutex_);
  slots_.erase(uid);
  return {};
}

Result<uint32_t> RecordStore::ReserveSlot(const api::SandboxUid& uid, uint32_t limit) {
  std::lock_guard lock(mutex_);
  if (const auto mine = slots_.find(uid); mine != slots_.end()) return mine->second;
  std::set<uint32_t> taken;
  for (const auto& [other, slot] : slots_) taken.insert(slot);
  uint32_t slot = 1;
  for (const uint32_t used : taken) {
    if (used == slot) ++slot;
  }
  if (slot >= limit)
    return Fail(ErrorCode::kNoSpace,
                "all " + std::to_string(limit - 1) + " sandbox slots are taken");
  slots_[uid] = slot;
  return slot;
}

}  // namespace dormouse
