// A VMM's files as it sees them in its own root (host/launch.h).
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

}  // namespace dormouse
