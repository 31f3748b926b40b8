// A VMM's files as it sees them in its own root (host/launch.h).
// The same for every sandbox, so that a snapshot's config needs few edits.
#pragma once

#include <string>

#include "node-agent/record/generation_files.h"
#include "node-agent/record/record.h"

namespace dormouse {

inline constexpr char kInnerDirectory[] = "/vm";  ///< Paths::VmDirectory
inline constexpr char kInnerDrop[] = "/drop";     ///< DropOf
inline constexpr char kInnerBinary[] = "/vmm/cloud-hypervisor";
inline constexpr char kInnerKernel[] = "/vmm/kernel";
inline constexpr char kInnerInitramfs[] = "/vmm/initramfs";
inline constexpr char kInnerMemory[] =
    "/vmm/memory";  ///< of the generation that it is woken from; read-only
inline constexpr char kInnerDisk[] = "/dev/disk";
// In a cell the two stand in directories, as they come when the VMM runs already.
inline constexpr char kCellMemory[] = "/memory";     ///< Paths::CellMemory
inline constexpr char kCellDevices[] = "/dev/cell";  ///< Paths::CellDevices
inline constexpr char kCellDisk[] = "disk";

[[nodiscard]] inline std::string InnerDisk(const Record& record) {
  return record.cell ? std::string(kCellDevices) + "/" + kCellDisk : kInnerDisk;
}

/// Of a file directly in Paths::VmDirectory.
[[nodiscard]] inline std::string Inner(const std::string& host_path) {
  return std::string(kInnerDirectory) + "/" + host_path.substr(host_path.find_last_of('/') + 1);
}

[[nodiscard]] inline std::string InnerMemory(const Record& record) {
  return record.cell ? std::string(kCellMemory) + "/" + kMemoryFile : kInnerMemory;
}

}  // namespace dormouse
