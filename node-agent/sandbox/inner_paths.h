// A VMM's files as it sees them in its own root (host/launch.h), and the names of a generation's.
// The same for every sandbox, so that a snapshot's config needs few edits.
#pragma once

#include <string>

namespace dormouse {

inline constexpr char kInnerDirectory[] = "/vm";  ///< Paths::VmDirectory
inline constexpr char kInnerDrop[] = "/drop";     ///< Paths::Drop
inline constexpr char kInnerBinary[] = "/vmm/cloud-hypervisor";
inline constexpr char kInnerKernel[] = "/vmm/kernel";
inline constexpr char kInnerInitramfs[] = "/vmm/initramfs";
inline constexpr char kInnerMemory[] =
    "/vmm/memory";  ///< of the generation that it is woken from; read-only
inline constexpr char kInnerDisk[] = "/dev/disk";

/// Of a file directly in Paths::VmDirectory.
[[nodiscard]] inline std::string Inner(const std::string& host_path) {
  return std::string(kInnerDirectory) + "/" + host_path.substr(host_path.find_last_of('/') + 1);
}

// In Paths::Generation.
inline constexpr char kMemoryFile[] = "memory";
inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kStateFile[] = "state.json";
inline constexpr char kStoreFile[] = "store.cow";
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kDigestsFile[] = "memory.digests";
// In Paths::Drop: the VMM's own name for it.
inline constexpr char kStockMemoryFile[] = "memory-ranges";

}  // namespace dormouse
