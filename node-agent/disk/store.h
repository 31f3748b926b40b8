// The file that holds what a sandbox's disk differs by: a dm-snapshot persistent store
// (drivers/md/dm-snap-persistent.c): a header chunk, then areas of one chunk of exceptions and as
// many data chunks as fit in it.
//
// A store never meets ENOSPC (invariant 12): its size covers the worst case, so that dm never finds
// it full, and its blocks are allocated ahead of use, so that the file system never refuses one. A
// store that was reflinked shares blocks with its generation: writing those again needs new blocks,
// which allocation ahead does not reserve; the node's reserve (capacity.h) must cover them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "node-agent/host/sparse_files.h"
#include "src/common/base/result.h"

namespace dormouse::disk {

inline constexpr uint32_t kChunkSectors = 8;                 ///< 4 KiB: the guest's page and block
inline constexpr uint64_t kAllocationWindow = 256ull << 20;  ///< allocated ahead of the fill level

/// Bytes that a store needs when every chunk of a disk of `disk_sectors` differs. Pure.
[[nodiscard]] uint64_t WorstCaseStoreBytes(uint64_t disk_sectors,
                                           uint32_t chunk_sectors = kChunkSectors);

/// What to allocate next so that `window` bytes are free ahead of `used_bytes`; nothing while at
/// least half of the window is still ahead. `allocated_bytes` as of st_blocks. Pure.
[[nodiscard]] std::optional<host::Extent> NextAllocation(uint64_t used_bytes,
                                                         uint64_t allocated_bytes,
                                                         uint64_t store_bytes, uint64_t window);

/// Makes the store, zeroed, of the worst case's size, its first window allocated, and syncs it. A
/// store that is there is left as it is (content included), but for a half-made one of another
/// size: kCorrupt. kNoSpace leaves no file.
Result<> EnsureStore(const std::string& file, uint64_t disk_sectors,
                     uint64_t window = kAllocationWindow);

/// Allocates ahead for a fill level of `used_bytes`. Returns the bytes newly reserved (0 = enough
/// there).
Result<uint64_t> AllocateAhead(const std::string& file, uint64_t used_bytes,
                               uint64_t window = kAllocationWindow);

}  // namespace dormouse::disk
