// The memory image of a paused VM, written from outside: the diverged pages are written over the
// file that its RAM is mapped from, or over a reflinked copy of that where others need it as it is;
// where RAM is anonymous, a new file gets the pages that were ever touched. The outcome is, byte
// for byte, what the VMM's own vm.snapshot would have written.
//
// Over the file itself, with the guest still on it: a diverged page is the process's own copy, and
// nothing else is written, so the guest sees none of it, whether the dump comes to its end or not.
// It goes on, and its next dump writes those pages again, as what has diverged stays so. The file
// must be of no use but to this process: its content is of no one instant until the dump is whole.
// What it gains: the page cache stays with the inode, so that the next wake finds in it what the
// guest has read; extents stay where they are; and a file system without reflinks copies nothing.
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

/// Gives `previous`, the memory file that RAM is mapped from, the name `path` too (which must not
/// be there), to be dumped over. For a file that nothing but this process maps, and nothing will be
/// woken from as it is. kCorrupt when it is not of `bytes`.
Result<> ContinueMemoryFile(const std::string& previous, uint64_t bytes, const std::string& path);

struct DumpResult {
  uint64_t scanned_pages = 0;
  uint64_t diverged_bytes = 0;
  uint64_t written_bytes = 0;  ///< of these
  uint64_t punched_bytes = 0;  ///< of these: zero now, and data in the previous image
  std::vector<FileRun>
      changed;  ///< the diverged bytes: all that may differ from the previous image
};

/// Writes what `process` has in anonymous memory into `file`, MakeMemoryFile's, and fsyncs, while
/// the guest runs: what its dump then finds unchanged it need not write. Returns the bytes written.
/// A hint: the image is of no one instant, and the dump is right whatever it finds. On failure, of
/// which nobody need take notice, the file is empty again, or gone where it cannot be emptied: then
/// the dump fails, too.
Result<uint64_t> DumpAhead(const host::Process& process, const RamMap& map,
                           const std::string& file);

/// Writes the diverged pages of the paused `process` over `file`, which MakeMemoryFile or
/// ContinueMemoryFile made of the file that `map` is of, or MakeMemoryFile anew where `map` is
/// anonymous: then only what DumpAhead has not written, or the guest has changed since. Pages of
/// zeros become holes. What was written is on its way to the disk, but it is the caller who fsyncs.
/// On failure the file is of no use, but to a process that maps it: one that RAM is mapped from
/// holds none of the room that the dump took. kNoSpace; kUnavailable when the process is gone;
/// kInvalid when `file` is not what it must be.
Result<DumpResult> DumpDiverged(const host::Process& process, const RamMap& map,
                                const std::string& file);

}  // namespace dormouse::memory
