// From the initramfs to the sandbox's own disk. Called once, by PID 1.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "guest-agent/init/kernel_args.h"
#include "guest-agent/init/modules.h"
#include "src/common/base/result.h"

namespace dormouse::guest {

/// /dev, /proc and /sys of the initramfs.
[[nodiscard]] Result<void> MountKernelFileSystems();

/// "ext4", "xfs" or "btrfs" by the superblock's magic in the disk's first bytes (at least
/// kSuperblockBytes of them), or "" for anything else.
[[nodiscard]] std::string DetectFileSystem(std::string_view first_bytes);
inline constexpr size_t kSuperblockBytes = 0x10000 + 0x48;

/// Waits for the root device, loads its file system's modules and mounts it at /newroot. Its type.
[[nodiscard]] Result<std::string> MountRoot(const KernelArgs& args, ModuleSet& modules,
                                            std::chrono::milliseconds wait);

/// Moves the kernel's file systems into /newroot and makes it "/"; then the rest that programs
/// expect: /run, /dev/pts, /dev/shm, cgroup2. The files of the initramfs are deleted, which frees
/// their memory.
[[nodiscard]] Result<void> SwitchToRoot();

/// Grows the mounted "/" to its device. Success when there is nothing to do.
[[nodiscard]] Result<void> GrowRoot(const std::string& type, const std::string& device);

}  // namespace dormouse::guest
