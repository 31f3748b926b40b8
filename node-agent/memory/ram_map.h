// Where a guest's RAM is in its VMM's address space, read from /proc/<pid>/maps (proc_pid_maps(5)).
//
// The VMM allocates RAM in one of two ways (create_ram_region_raw, vmm/src/memory_manager.rs,
// v53.0): private anonymous memory, or a private mapping of a memory file that it was told to
// restore from. Which bytes of the memory file a mapping stands for is certain in the second case,
// and deduced from sizes in the first, and from one thing that the VMM itself has put into RAM
// where sizes tell what is RAM and not in which order; what is not certain is refused
// (kUnsupported), and the caller lets the VMM write its memory itself.
//
// Pure but for FindRam; thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/host/process.h"
#include "src/common/base/result.h"

namespace dormouse::memory {

/// x86-64's base page: the unit of /proc/<pid>/pagemap.
inline constexpr uint64_t kPageBytes = 4096;

/// Where the VMM puts the kernel's command line, with a NUL behind it (CMDLINE_START,
/// arch/src/x86_64/layout.rs, v53.0; load_cmdline of linux-loader 0.13).
inline constexpr uint64_t kCommandLineGpa = 0x20000;

/// A range of guest RAM, as state.json names it. A memory file holds the ranges of a guest one
/// after the other, so a range's offset in it is the sum of the lengths before it.
struct GuestRange {
  uint64_t gpa = 0;     ///< the guest's physical address
  uint64_t length = 0;  ///< bytes; whole pages
  bool operator==(const GuestRange&) const = default;
};
[[nodiscard]] uint64_t TotalBytes(const std::vector<GuestRange>& ranges);
/// Those of a guest that was booted with `bytes` of RAM (arch_memory_regions,
/// arch/src/x86_64/mod.rs, v53.0): up to 3 GiB, and what is more from 4 GiB on.
[[nodiscard]] std::vector<GuestRange> BootRanges(uint64_t bytes);

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

/// Whether guest-physical address 0 may be at this address of the VMM. Asked only of addresses at
/// which a whole first range of RAM would lie within mappings that are RAM in any case.
using GuestStartsAt = std::function<Result<bool>(uint64_t address)>;

/// RAM that is private anonymous memory, of one range or two (arch_memory_regions,
/// arch/src/x86_64/mod.rs, v53.0: below 3 GiB, and from 4 GiB on).
///
/// One range is the one mapping of exactly its length. Two are one mapping each, or one mapping of
/// exactly their sum: they are allocated one after the other, so mostly next to each other, and the
/// kernel makes one mapping of neighbours of one kind. (It merges RAM with nothing else, as v53.0
/// marks RAM with MADV_DONTDUMP: create_userspace_mapping, vmm/src/memory_manager.rs.)
///
/// Sizes alone decide which memory of the VMM is RAM: with one mapping more of any of these three
/// lengths it is kUnsupported, whatever is in it. `starts_at` decides only in which order the two
/// ranges lie where sizes do not, in a merged mapping or in two of one length, and must be true of
/// exactly one order. So a guest that forges what it looks for gets an image of its own RAM in the
/// wrong order, and never one of anything else.
Result<RamMap> FindAnonymousRam(const std::vector<Mapping>& mappings,
                                const std::vector<GuestRange>& ranges,
                                const GuestStartsAt& starts_at);

/// RAM that is mapped from a memory file: the mappings that `is_memory_file` says are of it, which
/// must be private, writable, and hold each byte of the image exactly once; the kernel may have
/// split or merged them. kUnsupported otherwise.
Result<RamMap> FindFileRam(const std::vector<Mapping>& mappings,
                           const std::vector<GuestRange>& ranges,
                           const std::function<bool(const Mapping&)>& is_memory_file);

/// Reads the maps of `process` and finds its RAM: in `memory_file` when one is named (a path of
/// ours; its name may be gone for the VMM, whose mount namespace is another), else anonymous. A
/// mapping is the file's when /proc/<pid>/map_files, which needs CAP_SYS_ADMIN, leads to it: the
/// device number that maps shows is not that of stat(2) on btrfs. kNotFound when the process has
/// exited, kUnavailable when it does meanwhile.
///
/// `command_line` is what the guest's kernel was booted with, as the VMM put it into RAM; empty
/// where that is not known. The guest starts where it is found at kCommandLineGpa: Linux has given
/// nobody the first MiB since 5.13 (reserve_real_mode, arch/x86/realmode/init.c), so it is there
/// for as long as the guest lives, and after each wake. The process must stand still.
Result<RamMap> FindRam(const host::Process& process, const std::vector<GuestRange>& ranges,
                       const std::optional<std::string>& memory_file,
                       std::string_view command_line = {});

}  // namespace dormouse::memory
