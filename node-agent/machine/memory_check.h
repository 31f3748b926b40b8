// Whether the memory of a generation still is what was captured, by the digests beside it
// (memory/digests.h).
//
// All of it is read at its first use after the node's boot, and by the scrub (memory_keeper.h). In
// between a mark below the run directory says that it is known: /run is empty after a boot. The
// mark names the file by inode, size and time of its last change, so that one that was written to
// or replaced since is read again. None of the three tells that a file system has lost extents of
// it, which then read as zeros: the mark also says what memory and store take on disk, and of that
// what is data. One with less data is read again, and is corrupt where there are no digests to read
// it by; of a store nothing else can be told. What a capture wrote in this boot is marked without
// being read, as it would come back from the page cache that it was just written to, and without
// being counted: the keeper does that, and renews marks.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "node-agent/memory/digests.h"
#include "node-agent/memory/manifest.h"
#include "node-agent/record/paths.h"
#include "src/common/api/ids.h"
#include "src/common/base/result.h"

namespace dormouse {

struct GenerationName {
  api::SandboxUid owner;  ///< sandbox or template
  uint64_t number = 0;    ///< 0 of a template
  std::string directory;
};

/// Kept beside the memory. Nothing where none were computed yet, or they are not of this memory, or
/// cannot be read: they are not what is asked about.
[[nodiscard]] std::optional<memory::MemoryDigests> ReadDigests(const std::string& directory,
                                                               const memory::Manifest& manifest);
Result<memory::Manifest> ReadManifest(const std::string& directory);

/// The files as a mark names them.
struct FilesIdentity {
  std::string memory;  ///< inode, size and time of change; empty where it cannot be looked at
  uint64_t allocated_bytes = 0;        ///< by memory and store
  std::optional<uint64_t> data_bytes;  ///< of the two, what is no hole; none where nobody counted
  bool operator==(const FilesIdentity&) const = default;
};
/// Counting takes two calls for each extent: not while a guest stands still, nor in each wake.
enum class Holes { kLeave, kCount };
/// Taken before the files are read.
[[nodiscard]] FilesIdentity IdentityOf(const std::string& directory, Holes holes);
/// Whether files that take less on disk than when they were marked have only given back what was
/// set aside for them, as XFS does with what it allocates past a write. False, too, where that
/// cannot be told. Pure; `seen` is counted.
[[nodiscard]] bool OnlyGaveSpaceBack(const FilesIdentity& marked, const FilesIdentity& seen);
/// Bytes of data that the same files had when they were marked, and that are holes now. 0, too,
/// where that cannot be told, and where they take as much on disk as then: space that is set aside
/// counts as data while a reader's zeros for it are in the page cache. Pure; `seen` is counted.
[[nodiscard]] uint64_t LostBytes(const FilesIdentity& marked, const FilesIdentity& seen);
/// Whether `marked` still speaks for the files: they are the same, and have lost nothing. Pure;
/// `seen` needs to be counted only where it takes less on disk.
[[nodiscard]] bool IsStillGood(const FilesIdentity& marked, const FilesIdentity& seen);

/// Failing costs another reading, and is only logged.
void MarkVerified(const Paths& paths, const GenerationName& generation,
                  const FilesIdentity& identity);
/// Nothing where there is none.
[[nodiscard]] std::optional<FilesIdentity> ReadMark(const Paths& paths,
                                                    const GenerationName& generation);
/// Writes nothing. Holes are counted only where the files take less on disk than the mark says.
[[nodiscard]] bool IsVerified(const Paths& paths, const GenerationName& generation);
/// kCorrupt, saying how much, where LostBytes() of the mark and `seen` finds any.
Result<> CheckNothingLost(const Paths& paths, const GenerationName& generation,
                          const FilesIdentity& seen);
void ForgetVerified(const Paths& paths, const GenerationName& generation);

class MemoryCheck {
 public:
  explicit MemoryCheck(Paths paths) : paths_(std::move(paths)) {}

  /// Before a VM maps it. Reads nothing where it is marked; else all of it, as long as that takes,
  /// and others that want the same one wait for it. kCorrupt naming the first chunk that differs,
  /// its offset, and how many do; it is said again without reading while the file is the same.
  /// Where there are no digests, kCorrupt if extents were lost since it was counted; else success,
  /// with a warning in the log.
  Result<> BeforeUse(const GenerationName& generation, const memory::Manifest& manifest);

 private:
  struct Damage {
    FilesIdentity identity;
    Error error;
  };
  [[nodiscard]] std::shared_ptr<std::mutex> TurnOf(const std::string& directory);
  [[nodiscard]] std::optional<Error> DamageOf(const std::string& directory,
                                              const FilesIdentity& identity);
  void Remember(const std::string& directory, const FilesIdentity& identity, const Error& error);

  const Paths paths_;
  std::mutex mutex_;
  // By directory.
  std::map<std::string, std::weak_ptr<std::mutex>> turns_;  // of those that are being read
  std::map<std::string, Damage> damaged_;
};

}  // namespace dormouse
