// Files that survive a power cut: whole or old, never half.
//
// Thread-safe as far as the paths differ. Nothing here follows a size it was told: every read is
// bounded.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse {

/// The whole file, or kInvalid when it is larger than `max_bytes`. kNotFound when it is not there.
Result<std::string> ReadFile(const std::string& path, size_t max_bytes);
/// The same of an open file, from where it stands; `shown` is its name in messages.
Result<std::string> ReadDescriptor(int fd, size_t max_bytes, const std::string& shown);

/// Writes `content` to a temporary name beside `path`, fsyncs it, renames it over `path` and fsyncs
/// the directory. After a crash the old or the new content is there.
Result<> WriteFileAtomically(const std::string& path, std::string_view content, mode_t mode = 0600);

/// Writes `content` with one write() and no fsync: for kernel files (/proc, /sys, cgroup).
Result<> WriteKernelFile(const std::string& path, std::string_view content);

/// Makes `path` and what is missing above it. Success when it is there.
Result<> MakeDirectories(const std::string& path, mode_t mode = 0700);

/// Fsyncs a directory, so that names in it survive a power cut.
Result<> SyncDirectory(const std::string& path);
/// Fsyncs a file's data and metadata.
Result<> SyncFile(const std::string& path);

/// Removes a file; success when it is not there.
Result<> RemoveFile(const std::string& path);
/// Removes a file, or a directory and all below it, following no symbolic link. Success when it is
/// not there.
///
/// Whoever filled it may be hostile: it takes a few descriptors and some KiB however deep and wide
/// the tree is, and each directory becomes ours, so that nobody makes new names meanwhile. kBusy,
/// with part of it removed, where something is mounted: no mount is entered.
Result<> RemoveTree(const std::string& path);
/// The same for all that is in a directory. It stays, and is ours afterwards (its mode for nobody
/// else); it may be a mount point itself.
Result<> EmptyDirectory(const std::string& path);

/// The names in a directory but "." and "..", sorted. Empty when it is not there.
Result<std::vector<std::string>> ListDirectory(const std::string& path);

[[nodiscard]] bool PathExists(const std::string& path);

/// write() until all is written.
Result<> WriteAll(int fd, std::string_view content);

}  // namespace dormouse
