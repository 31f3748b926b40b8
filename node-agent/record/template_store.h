// The templates of a node, on disk and in memory.
//
// Thread-safe. A template that somebody holds (the shared pointer that Find gives) is not removed:
// whoever makes a clone holds it until the clone's own record names it. Save is the commit point of
// a capture: when it returns, the template survives a power cut.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/record/paths.h"
#include "node-agent/record/template_record.h"
#include "src/common/base/result.h"

namespace dormouse {

class TemplateStore {
 public:
  using Ptr = std::shared_ptr<const TemplateRecord>;

  TemplateStore(Paths paths, std::string cluster_id)
      : paths_(std::move(paths)), cluster_id_(std::move(cluster_id)) {}

  /// Once, when the agent starts, before anything is captured: reads all, and removes what a
  /// capture left that did not come to its commit. Fails only when the directory cannot be read.
  Result<> Load();

  /// Null when there is none.
  [[nodiscard]] Ptr Find(const api::SandboxUid& uid) const;
  /// The youngest of that name.
  [[nodiscard]] Ptr FindByName(std::string_view ns, std::string_view name) const;
  [[nodiscard]] std::vector<Ptr> All() const;
  /// Its record could not be read; its files are kept.
  [[nodiscard]] bool IsCorrupt(const api::SandboxUid& uid) const;
  /// Only a newer agent may write its record; it is left alone.
  [[nodiscard]] bool IsNewer(const api::SandboxUid& uid) const;
  /// False where something of this node is named by a record that is not ours to read.
  [[nodiscard]] bool AllRead() const;

  /// Its files are there, whole and on disk; kNotFound when not even their directory is. On failure
  /// the caller discards them: whether or not the record has reached the disk, nobody refers to it.
  Result<> Commit(TemplateRecord record);
  /// A change of what is known of one that is committed.
  Result<> Save(const TemplateRecord& record);
  /// What a capture left that failed; nothing where one is committed.
  void Discard(const api::SandboxUid& uid);
  /// Files and record. Success when it is not there; kBusy while somebody holds it.
  Result<> Remove(const api::SandboxUid& uid);

 private:
  /// Moves its directory to a name of its own, from which it is removed without the lock: gigabytes
  /// take seconds, and each worker and the liveness probe wait for the lock. `condemned` is that
  /// name, or stays empty where there is no directory. Needs the lock.
  Result<> Condemn(const api::SandboxUid& uid, std::string* condemned);

  const Paths paths_;
  const std::string cluster_id_;
  mutable std::mutex mutex_;
  std::map<api::SandboxUid, Ptr> templates_;
  std::set<api::SandboxUid> corrupt_, newer_;
  bool all_read_ = true;
  uint64_t condemned_count_ = 0;
};

}  // namespace dormouse
