// Where a guest's RAM is in its VMM's address space, read from /proc/<pid>/maps (proc_pid_maps(5)).
//
// The VMM allocates RAM in one of two ways (create_ram_region_raw, vmm/src/memory_manager.rs,
// v53.0): private anonymous memory, or a private mapping of a memory file that it was told to
// restore from. Which bytes of the memory file a mapping stands for is certain in the second case,
// and deduced from sizes in the first; what is not certain is refused (kUnsupported), and the
// caller lets the VMM write its memory itself.
//
// Pure but for FindRam; thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse::memory {

/// x86-64's base page: the unit of /proc/<pid>/pagemap.
inline constexpr uint64_t kPageBytes = 4096;

/// A range of guest RAM, as state.json names it. A memory file holds the ranges of a guest one
/// after the other, so a range's offset in it is the sum of the lengths before it.
struct GuestRange {
  uint64_t gpa = 0;     ///< the guest's physical address
  uint64_t length = 0;  ///< bytes; whole pages
  bool operator==(const GuestRange&) const = default;
};
[[nodiscard]] uint64_t TotalBytes(const std::vector<GuestRange>& ranges);

/// One line of /proc/<pid>/maps.
struct Mapping {
  uint64_t start = 0;
  uint64_t end = 0;
  bool readable = false, writable = false, shared = false;
  uint64_t offset = 0;  ///< in the file
  uint32_t device_major = 0, device_minor = 0;
  uint64_t inode = 0;  ///< 0 = no file
  std::string path;    ///< as that process's mount namespace has it; for messages
};
/// kInvalid naming the first line that is not one.
Result<std::vector<Mapping>> ParseMaps(std::string_view text);

/// A piece of the memory file's image at its address in the VMM.
struct RamSegment {
  uint64_t address = 0;
  uint64_t length = 0;
  uint64_t file_offset = 0;
  bool operator==(const RamSegment&) const = default;
};
struct RamMap {
  bool from_file = false;            ///< what has not diverged equals the file; else it is zero
  uint64_t bytes = 0;                ///< of all segments
  std::vector<RamSegment> segments;  ///< by file offset; each byte of the image exactly once
};

/// RAM that is private anonymous memory: one mapping of exactly each range's length. kUnsupported
/// when a length has no mapping or more than one, as where two ranges are of one size, or where the
/// kernel merged RAM with a neighbour.
Result<RamMap> FindAnonymousRam(const std::vector<Mapping>& mappings,
                                const std::vector<GuestRange>& ranges);

/// RAM that is mapped from a memory file: the mappings that `is_memory_file` says are of it, which
/// must be private, writable, and hold each byte of the image exactly once; the kernel may have
/// split or merged them. kUnsupported otherwise.
Result<RamMap> FindFileRam(const std::vector<Mapping>& mappings,
                           const std::vector<GuestRange>& ranges,
                           const std::function<bool(const Mapping&)>& is_memory_file);

/// Reads the maps of `pid` and finds its RAM: in `memory_file` when one is named (a path of ours;
/// its name may be gone for the VMM, whose mount namespace is another), else anonymous. A mapping
/// is the file's when /proc/<pid>/map_files, which needs CAP_SYS_ADMIN, leads to it: the device
/// number that maps shows is not that of stat(2) on btrfs. kNotFound when there is no such process.
Result<RamMap> FindRam(int pid, const std::vector<GuestRange>& ranges,
                       const std::optional<std::string>& memory_file);

}  // namespace dormouse::memory
