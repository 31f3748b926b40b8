// Whether the memory of a generation still is what was captured, by the digests beside it
// (memory/digests.h).
//
// All of it is read at its first use after the node's boot, and by the scrub (memory_keeper.h). In
// between a mark below the run directory says that it is known: /run is empty after a boot. The
// mark names the file by inode, size and time of its last change, so that one that was written to
// or replaced since is read again. What a capture wrote in this boot is marked without being read:
// it would come back from the page cache that it was just written to.
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
#include "node-agent/sandbox/paths.h"
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

/// The file as a mark names it; empty where it cannot be looked at. Taken before it is read.
[[nodiscard]] std::string MemoryIdentity(const std::string& directory);
/// Failing costs another reading, and is only logged.
void MarkVerified(const Paths& paths, const GenerationName& generation,
                  const std::string& identity);
[[nodiscard]] bool IsVerified(const Paths& paths, const GenerationName& generation);
void ForgetVerified(const Paths& paths, const GenerationName& generation);

class MemoryCheck {
 public:
  explicit MemoryCheck(Paths paths) : paths_(std::move(paths)) {}

  /// Before a VM maps it. Reads nothing where it is marked; else all of it, as long as that takes,
  /// and others that want the same one wait for it. kCorrupt naming the first chunk that differs,
  /// its offset, and how many do; it is said again without reading while the file is the same.
  /// Success, with a warning in the log, where there are no digests.
  Result<> BeforeUse(const GenerationName& generation, const memory::Manifest& manifest);

 private:
  struct Damage {
    std::string identity;
    Error error;
  };
  [[nodiscard]] std::shared_ptr<std::mutex> TurnOf(const std::string& directory);
  [[nodiscard]] std::optional<Error> DamageOf(const std::string& directory,
                                              const std::string& identity);
  void Remember(const std::string& directory, const std::string& identity, const Error& error);

  const Paths paths_;
  std::mutex mutex_;
  // By directory.
  std::map<std::string, std::weak_ptr<std::mutex>> turns_;  // of those that are being read
  std::map<std::string, Damage> damaged_;
};

}  // namespace dormouse
