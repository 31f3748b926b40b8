#include "node-agent/record/template_store.h"

#include <cerrno>
#include <cstdio>

#include "src/common/base/files.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

constexpr size_t kMaxTemplateRecordBytes = 1 << 20;

}  // namespace

Result<> TemplateStore::Load() {
  DORMOUSE_TRY(MakeDirectories(paths_.Templates()));
  DORMOUSE_TRY(RemoveTree(paths_.Condemned()));
  DORMOUSE_ASSIGN(const auto names, ListDirectory(paths_.Templates()));
  for (const std::string& name : names) {
    const auto uid = api::SandboxUid::Parse(name);
    if (!uid) {
      log::Warning("a directory among the templates is none", {{"name", name}});
      continue;
    }
    const auto text = ReadFile(paths_.TemplateRecord(*uid), kMaxTemplateRecordBytes);
    if (!text && text.error().code() == ErrorCode::kNotFound) {
      DORMOUSE_TRY(RemoveTree(paths_.Verified(*uid)));
      DORMOUSE_TRY(RemoveTree(paths_.Template(*uid)));
      continue;
    }
    auto record = text ? DecodeTemplateRecord(*text) : Result<TemplateRecord>(Fail(text.error()));
    if (record && record->uid != *uid)
      record = Fail(ErrorCode::kCorrupt, "record of another template");
    const std::lock_guard lock(mutex_);
    all_read_ = all_read_ && record && record->cluster_id == cluster_id_;
    if (!record && record.error().code() == ErrorCode::kUnsupported) {
      log::Error("a template is left alone: only a newer agent may write its record",
                 {{"uid", name}, {"error", record.error().message()}});
      newer_.insert(*uid);
    } else if (!record) {
      log::Error("the record of a template is unreadable; its files are kept",
                 {{"uid", name}, {"error", record.error().message()}});
      corrupt_.insert(*uid);
    } else if (record->cluster_id != cluster_id_) {
      log::Warning("a template of another cluster is left alone",
                   {{"uid", name}, {"cluster", record->cluster_id}});
    } else {
      templates_.emplace(*uid, std::make_shared<TemplateRecord>(std::move(*record)));
    }
  }
  return {};
}

TemplateStore::Ptr TemplateStore::Find(const api::SandboxUid& uid) const {
  const std::lock_guard lock(mutex_);
  const auto found = templates_.find(uid);
  return found == templates_.end() ? nullptr : found->second;
}

TemplateStore::Ptr TemplateStore::FindByName(std::string_view ns, std::string_view name) const {
  const std::lock_guard lock(mutex_);
  Ptr found;
  for (const auto& [uid, record] : templates_) {
    if (record->IsBootSnapshot() || record->ns != ns || record->name != name) continue;
    if (found == nullptr || found->captured_at < record->captured_at) found = record;
  }
  return found;
}

std::vector<TemplateStore::Ptr> TemplateStore::All() const {
  const std::lock_guard lock(mutex_);
  std::vector<Ptr> all;
  for (const auto& [uid, record] : templates_) all.push_back(record);
  return all;
}

bool TemplateStore::IsCorrupt(const api::SandboxUid& uid) const {
  const std::lock_guard lock(mutex_);
  return corrupt_.contains(uid);
}

bool TemplateStore::IsNewer(const api::SandboxUid& uid) const {
  const std::lock_guard lock(mutex_);
  return newer_.contains(uid);
}

bool TemplateStore::AllRead() const {
  const std::lock_guard lock(mutex_);
  return all_read_;
}

Result<> TemplateStore::Commit(TemplateRecord record) {
  record.cluster_id = cluster_id_;
  return Save(record);
}

Result<> TemplateStore::Save(const TemplateRecord& record) {
  DORMOUSE_TRY(
      WriteFileAtomically(paths_.TemplateRecord(record.uid), EncodeTemplateRecord(record)));
  const std::lock_guard lock(mutex_);
  templates_.insert_or_assign(record.uid, std::make_shared<TemplateRecord>(record));
  return {};
}

Result<> TemplateStore::Condemn(const api::SandboxUid& uid, std::string* condemned) {
  DORMOUSE_TRY(RemoveTree(paths_.Verified(uid)));  // a mark or two: small
  DORMOUSE_TRY(MakeDirectories(paths_.Condemned()));
  const std::string away = paths_.Condemned() + "/" + std::to_string(++condemned_count_);
  if (::rename(paths_.Template(uid).c_str(), away.c_str()) == 0) {
    *condemned = away;
  } else if (errno != ENOENT) {
    return FailErrno("move " + paths_.Template(uid) + " away");
  }
  return {};
}

void TemplateStore::Discard(const api::SandboxUid& uid) {
  std::string condemned;
  const auto discard = [&]() -> Result<> {
    {
      const std::lock_guard lock(mutex_);
      if (templates_.contains(uid) || corrupt_.contains(uid) || newer_.contains(uid)) return {};
      DORMOUSE_TRY(Condemn(uid, &condemned));
    }
    return condemned.empty() ? Result<>() : RemoveTree(condemned);
  };
  if (auto removed = discard(); !removed) {
    log::Warning("what a capture left stays until the agent's next start",
                 {{"template", uid.text()}, {"error", removed.error().message()}});
  }
}

Result<> TemplateStore::Remove(const api::SandboxUid& uid) {
  std::string condemned;
  {
    const std::lock_guard lock(mutex_);
    const auto found = templates_.find(uid);
    if (found != templates_.end() && found->second.use_count() > 1)
      return Fail(ErrorCode::kBusy, "a clone of the template is being made");
    // The record goes first: what has none is a capture that was cut short, and is nobody's.
    DORMOUSE_TRY(RemoveFile(paths_.TemplateRecord(uid)));
    if (found != templates_.end()) templates_.erase(found);
    corrupt_.erase(uid);
    DORMOUSE_TRY(Condemn(uid, &condemned));
  }
  DORMOUSE_TRY(SyncDirectory(paths_.Templates()));
  return condemned.empty() ? Result<>() : RemoveTree(condemned);
}

}  // namespace dormouse
