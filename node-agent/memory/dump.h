// The memory image of a paused VM, written from outside: its memory file is a reflinked copy of the
// one that its RAM is mapped from, in which only the diverged pages are written anew; or a new file
// with the pages that were ever touched, where RAM is anonymous. The outcome is, byte for byte,
// what the VMM's own vm.snapshot would have written.
//
// Holds for private memory without balloon, huge pages or a device that maps guest memory elsewhere
// (vmm/snapshot_files.h, CheckPrivateMemory). Thread-safe as far as the files differ.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/memory/ram_map.h"
#include "src/common/base/result.h"

namespace dormouse::memory {

/// A part of the memory file.
struct FileRun {
  uint64_t offset = 0;
  uint64_t length = 0;
  bool operator==(const FileRun&) const = default;
};

/// Makes `path` (mode 0600; must not be there) the file to dump into: a clone of `previous`, the
/// memory file that RAM is mapped from, or `bytes` of hole. True when it shares the extents of
/// `previous`; a clone by copy costs what the previous image takes. kCorrupt when `previous` is not
/// of `bytes`, kNoSpace.
Result<bool> MakeMemoryFile(const std::optional<std::string>& previous, uint64_t bytes,
                            const std::string& path);

struct DumpResult {
  uint64_t scanned_pages = 0;
  uint64_t diverged_bytes = 0;
  uint64_t written_bytes = 0;  ///< of these
  uint64_t punched_bytes = 0;  ///< of these: zero now, and data in the previous image
  std::vector<FileRun>
      changed;  ///< the diverged bytes: all that may differ from the previous image
};

/// Writes the diverged pages of the paused process `pid` over `file`, which MakeMemoryFile made:
/// from the file that `map` is of, or anew where `map` is anonymous. Pages of zeros become holes.
/// What was written is on its way to the disk, but it is the caller who fsyncs. On failure the file
/// is of no use. kNoSpace; kUnavailable when the process is gone; kInvalid when `file` is not what
/// it must be.
Result<DumpResult> DumpDiverged(int pid, const RamMap& map, const std::string& file);

}  // namespace dormouse::memory
