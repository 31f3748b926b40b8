// What sandboxes of one base image share: the base file, pinned by digest, one read-only loop over
// it, and for each larger disk size one read-only origin, linear(base) + zero.
//
// Reference counts are the kernel's: a loop's holders and a dm device's open count. So they are
// right after a restart, and nothing is kept in memory. Thread-safe: changes to one base are
// serialized here.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/disk/images.h"
#include "node-agent/host/dm.h"
#include "node-agent/host/loop.h"
#include "src/common/base/result.h"

namespace dormouse::disk {

/// A base image's content, independent of the operator's directory. The file is never written.
struct Base {
  std::string digest;  ///< 64 hex digits
  std::string file;    ///< "<bases directory>/<digest>.img"
  uint64_t size_bytes = 0;
};

struct Origin {
  host::DeviceNumber number;
  uint64_t sectors = 0;
};

class BaseDevices {
 public:
  /// `bases_directory`: on the state file system.
  BaseDevices(host::DeviceMapper& dm, host::LoopDevices& loops, std::string bases_directory);

  /// Keeps the image's content for as long as the base is wanted: a reflink, else a hard link, else
  /// a sparse copy. Reads all of it: kCorrupt where it is not what the digest says. Idempotent.
  Result<Base> Pin(const Image& image);
  /// kNotFound when no such base is kept.
  Result<Base> Find(const std::string& digest);
  Result<std::vector<Base>> List();
  /// Removes devices and file; kBusy while a device of a sandbox stands on it.
  Result<> Unpin(const std::string& digest);

  /// The shared loop. kCorrupt when the file is shorter than it was, or its content is not what its
  /// digest says; it is read again only when inode, size, mtime or ctime have changed since.
  Result<host::LoopDevice> EnsureLoop(const Base& base);
  /// The loop itself where `disk_bytes` equals the base's size, else the shared linear + zero.
  /// kInvalid when it is smaller than the base, or no multiple of 512.
  Result<Origin> EnsureOrigin(const Base& base, uint64_t disk_bytes);

  /// Runs `work` with the origin, made where it is missing, which nobody releases meanwhile: a
  /// snapshot that `work` makes on it holds it from then on.
  Result<> WithOrigin(const Base& base, uint64_t disk_bytes,
                      const std::function<Result<>(const Origin&)>& work);

  /// Removes every origin and loop of ours that nobody uses. Returns how many those were.
  Result<int> ReleaseUnused();

 private:
  std::mutex& LockOf(std::string_view digest);
  Result<> CheckContentLocked(const Base& base);
  Result<host::LoopDevice> EnsureLoopLocked(const Base& base);
  Result<Origin> EnsureOriginLocked(const Base& base, uint64_t disk_bytes);
  Result<bool> ReleaseLoopLocked(const std::string& tag);

  host::DeviceMapper& dm_;
  host::LoopDevices& loops_;
  const std::string bases_directory_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<std::mutex>>
      locks_;  ///< by the digest's first 12; never removed
};

/// Name of the dm origin, of the loop's tag, of the file. Pure.
[[nodiscard]] std::string BaseLoopTag(const std::string& digest);
[[nodiscard]] std::string BaseFileName(const std::string& digest);

}  // namespace dormouse::disk
