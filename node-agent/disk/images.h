// Base images: raw disk images that the node's operator puts into a directory, "<name>.img" or
// "<name>.raw". A sandbox names one; it is resolved once, to a digest, and from then on the digest
// counts.
//
// Digests are computed off the critical path (a background thread calls RefreshDigests) and kept in
// a side file by (inode, size, mtime), so a restart reads no image again. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse::disk {

struct Image {
  std::string name;
  std::string path;
  uint64_t size_bytes = 0;  ///< a multiple of 512
  std::string digest;       ///< SHA-256, 64 hex digits; empty until it has been computed
  std::string
      problem;  ///< why it cannot be used ("image debian-12 is truncated: ..."); empty = fine
};

/// How large the ext2/3/4, XFS or btrfs file system that begins in `head` (its first 68 KiB, or
/// what there is) says it is. Nothing for other content (a partition table). Pure; the content is
/// untrusted.
[[nodiscard]] std::optional<uint64_t> FileSystemBytes(const std::string& head);

class Images {
 public:
  /// `cache_file`: where digests are remembered.
  Images(std::string directory, std::string cache_file);

  /// All images, sorted by name, problems included. No content but the heads is read.
  Result<std::vector<Image>> Scan();
  /// kNotFound (ImageNotFound); kCorrupt when truncated, or changed in place since its digest was
  /// taken; kUnavailable while its digest is being computed.
  Result<Image> Resolve(const std::string& name);
  /// Computes what is missing, one image after the other; reads every byte of those. `stop` is
  /// asked between images.
  Result<> RefreshDigests(const std::function<bool()>& stop = [] { return false; });

 private:
  struct CacheEntry {
    uint64_t inode = 0;
    uint64_t size = 0;
    int64_t mtime_ns = 0;
    std::string digest;
  };
  Result<> LoadCache();
  Result<> SaveCache();
  Result<std::vector<Image>> ScanLocked();

  const std::string directory_;
  const std::string cache_file_;
  std::mutex mutex_;
  bool loaded_ = false;
  std::map<std::string, CacheEntry> cache_;  ///< by path
};

}  // namespace dormouse::disk
