// The two JSON files of a Cloud Hypervisor snapshot: what we read of them, and the few values in
// them that a restore needs other than they were written.
//
// config.json is the VmConfig (vmm/src/vm_config.rs, v53.0). state.json is a tree of
// {"snapshots": {name: node}, "snapshot_data": {"state": "<JSON in a string>"}}
// (vm-migration/src/lib.rs). Nodes that we do not edit pass as they are, unparsed.
//
// The VMM that wrote them may have been taken over by its guest: sizes are bounded, parsing is
// strict, kCorrupt is what cannot be and kUnsupported what is not a machine of ours.
// Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse::vmm {

inline constexpr size_t kMaxConfigBytes = size_t{1} << 20;
/// A vCPU takes some 75 KiB.
inline constexpr size_t kMaxStateBytes = size_t{32} << 20;

/// A range of guest RAM. Its place in the memory file is the sum of the lengths before it
/// (MemoryManager::send), whatever `file_offset` of guest_ram_mappings says: that is its place in
/// the file that it is mapped from now.
struct RamRange {
  uint64_t gpa = 0;
  uint64_t length = 0;
  uint32_t slot = 0;
  uint64_t file_offset = 0;  ///< in the memory file
  bool operator==(const RamRange&) const = default;
};

struct StateSummary {
  std::vector<RamRange> ranges;  ///< in order of address: one up to 3 GiB, else two
  uint64_t memory_bytes = 0;     ///< of all ranges
  bool operator==(const StateSummary&) const = default;
};

/// Of the text of state.json. kUnsupported for virtio-mem, more than one memory zone, ranges that
/// are not in order of address, or a snapshot that leaves a range out.
Result<StateSummary> ReadStateSummary(std::string_view state_json);

/// Whether RAM is private memory that nothing but the VMM's own threads and KVM write: the
/// condition of dumping it from outside (node-agent/memory/dump.h) and of mapping it from a file.
/// kUnsupported naming what stands against it: shared or huge pages, hotplug, KSM, balloon, VFIO,
/// vhost-user, file systems, pmem.
Result<> CheckPrivateMemory(std::string_view config_json);

/// The kernel's command line as the VMM puts it into guest RAM: without white space around it
/// (Cmdline::insert_str of linux-loader 0.13, which v53.0 uses). Empty where there is none.
Result<std::string> ReadCommandLine(std::string_view config_json);

enum class RestoreMemory {
  kCopyOnWrite,  ///< RAM is a private mapping of the memory file: nothing is read beforehand
  kCopy,         ///< RAM is anonymous, filled from "memory-ranges" in the restored directory
};

/// Paths are as the VMM to come sees them.
struct RestoreEdits {
  RestoreMemory memory = RestoreMemory::kCopyOnWrite;
  std::string memory_file;  ///< for kCopyOnWrite; must not change while the VM lives
  std::string disk;
  std::string vsock_socket;   ///< must not exist
  std::string serial_socket;  ///< must not exist
  std::string kernel;         ///< opened when the guest reboots
  std::string initramfs;      ///< opened by the restore
};

struct RestoreTexts {
  std::string config_json;
  std::string state_json;
};

/// Both files as vm.restore, with memory_restore_mode Copy in either case, is to find them. For
/// kCopyOnWrite RAM becomes one zone with a file, and the ranges to be copied none, so that v53.0
/// maps the file (restore_memory_regions_and_zones) and fills nothing (fill_saved_regions); for
/// kCopy the reverse, whatever the source was. The tap's recorded host MAC goes, as setting it
/// takes CAP_NET_ADMIN. kUnsupported as CheckPrivateMemory and ReadStateSummary, or when the
/// machine has other than one disk, a vsock and a serial socket; kInvalid for a path that is not
/// absolute.
Result<RestoreTexts> PrepareRestore(std::string_view config_json, std::string_view state_json,
                                    const RestoreEdits& edits);

}  // namespace dormouse::vmm
