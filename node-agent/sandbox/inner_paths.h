// A VMM's files as it sees them in its own root (host/launch.h), and the names of a generation's.
// The same for every sandbox, so that a snapshot's config needs few edits.
#pragma once

#include <string>

#include "node-agent/sandbox/paths.h"
#include "node-agent/sandbox/record.h"

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

/// Where its VMM writes a capture's state.
[[nodiscard]] inline std::string DropOf(const Paths& paths, const Record& record) {
  return record.cell ? paths.CellDrop(record.cell->id) : paths.Drop(record.uid);
}
/// Where a generation of a sandbox lies; 0 is the template that it was cloned from.
[[nodiscard]] inline std::string GenerationOf(const Paths& paths, const Record& record,
                                              uint64_t number) {
  return number == 0 && record.origin ? paths.Template(record.origin->template_uid)
                                      : paths.Generation(record.uid, number);
}
/// Where a capture of a sandbox goes.
[[nodiscard]] inline std::string CaptureDirectory(const Paths& paths, const Record& record) {
  return record.capture_for ? paths.Template(record.capture_for->template_uid)
                            : paths.Generation(record.uid, record.generations);
}

// In a generation.
inline constexpr char kMemoryFile[] = "memory";
inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kStateFile[] = "state.json";
inline constexpr char kStoreFile[] = "store.cow";
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kDigestsFile[] = "memory.digests";
inline constexpr char kParentDigestsFile[] = "parent.digests";  ///< a link; the parent itself goes

[[nodiscard]] inline std::string InnerMemory(const Record& record) {
  return record.cell ? std::string(kCellMemory) + "/" + kMemoryFile : kInnerMemory;
}

// In DropOf: the VMM's own name for it.
inline constexpr char kStockMemoryFile[] = "memory-ranges";

}  // namespace dormouse
