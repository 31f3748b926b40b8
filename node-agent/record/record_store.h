// The records of a node, on disk and in memory.
//
// Thread-safe. A record is written by the one worker that holds its sandbox; readers get copies.
// Save is the commit point: when it returns, the record survives a power cut.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/record/paths.h"
#include "node-agent/record/record.h"
#include "src/common/base/result.h"

namespace dormouse {

class RecordStore {
 public:
  RecordStore(Paths paths, std::string cluster_id)
      : paths_(std::move(paths)), cluster_id_(std::move(cluster_id)) {}

  struct Loaded {
    std::vector<api::SandboxUid>
        corrupt;  ///< their files were moved to quarantine/; all else of them is left
    std::vector<api::SandboxUid> foreign;  ///< of another cluster: left alone
    std::vector<api::SandboxUid> newer;    ///< that only a newer agent may write: left alone
  };
  /// Reads every record once, when the agent starts. Fails only when the directory cannot be read.
  Result<Loaded> Load();

  [[nodiscard]] std::optional<Record> Find(const api::SandboxUid& uid) const;
  [[nodiscard]] std::vector<Record> All() const;
  /// Of all records, those that cannot be read and those of other clusters included.
  [[nodiscard]] std::vector<api::SandboxUid> KnownUids() const;
  [[nodiscard]] bool IsCorrupt(const api::SandboxUid& uid) const;
  [[nodiscard]] bool IsForeign(const api::SandboxUid& uid) const;
  [[nodiscard]] bool IsNewer(const api::SandboxUid& uid) const;
  /// Those of which IsNewer.
  [[nodiscard]] std::vector<api::SandboxUid> Newer() const;
  /// False where something of this node is named by a record that is not ours to read.
  [[nodiscard]] bool AllRead() const;

  /// Writes a record durably, then lets readers see it.
  Result<> Save(const Record& record);
  /// What stands on disk, which after a Save that failed is the old record or the new one.
  Result<Record> ReadBack(const api::SandboxUid& uid) const;
  /// Removes a sandbox's directory, its record last of all, and forgets it. Success when it is not
  /// there.
  Result<> Remove(const api::SandboxUid& uid);
  /// Removes what was made in the directory of one whose first record could not be written, as
  /// nothing else speaks for it, and gives its slot back. Leaves one alone that has a record.
  Result<> DropUnrecorded(const api::SandboxUid& uid);

  /// A slot that no record uses, in [1, limit). The caller saves a record with it before it takes
  /// another; until then, or until DropUnrecorded, the slot is reserved in memory. kNoSpace when
  /// all are taken.
  Result<uint32_t> ReserveSlot(const api::SandboxUid& uid, uint32_t limit);

  /// Keeps a slot from being given away: that of a running sandbox whose record cannot be read.
  void PinSlot(const api::SandboxUid& uid, uint32_t slot);

  [[nodiscard]] const std::string& cluster_id() const { return cluster_id_; }

 private:
  enum class Unusable { kCorrupt, kForeign, kNewer };
  Result<> Quarantine(const api::SandboxUid& uid);
  [[nodiscard]] bool Is(Unusable what, const api::SandboxUid& uid) const;

  const Paths paths_;
  const std::string cluster_id_;
  mutable std::mutex mutex_;
  std::map<api::SandboxUid, Record> records_;
  std::map<api::SandboxUid, uint32_t> slots_;  // of records, and reserved
  std::map<api::SandboxUid, Unusable> unusable_;
};

}  // namespace dormouse
