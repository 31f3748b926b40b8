// Loop devices: a regular file as a block device (drivers/block/loop.c; include/uapi/linux/loop.h).
//
// One loop per file, enforced: two over one store would corrupt it, and dm-snapshot cannot tell.
// The loop keeps the open file that it was given, and with it an exclusive flock() that we took: a
// second Attach of the file finds the lock held, in any process, and gets the loop that is there.
// Files are told by device and inode, never by name: the kernel shows a path that may belong to a
// dead mount namespace. Each loop is tagged (lo_file_name), so that ours can be listed without
// their files. Whoever opens this seam is the only one that makes loops of our tags from then on:
// what was there before is found, and what others detach is noticed.
//
// Thread-safe. The caller has CAP_SYS_ADMIN.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/host/device_number.h"
#include "src/common/base/result.h"

namespace dormouse::host {

inline constexpr std::string_view kLoopPrefix = "dormouse-";

struct LoopDevice {
  int index = -1;  ///< N of loopN
  DeviceNumber number;
  std::string tag;        ///< ours: "dormouse-<id>-store", "dormouse-base-<digest12>"
  dev_t file_device = 0;  ///< of the backing file
  ino_t file_inode = 0;
  bool read_only = false;
  bool direct_io = false;  ///< bypasses the page cache of the backing file
};

struct LoopOptions {
  std::string tag;  ///< begins with kLoopPrefix, at most 63 characters
  bool read_only = false;
  bool direct_io = true;  ///< where the file system can; silently not, elsewhere (tmpfs)
};

class LoopDevices {
 public:
  virtual ~LoopDevices() = default;

  /// The loop over `file`: a new one, or the one that is there. kAlreadyExists when that one has
  /// another tag or is not read-only as asked.
  virtual Result<LoopDevice> Attach(const std::string& file, const LoopOptions& options) = 0;
  /// Nothing when no loop of ours is over `file`; kNotFound when there is no such file.
  virtual Result<std::optional<LoopDevice>> FindByFile(const std::string& file) = 0;
  /// The first of that tag, also when its file has been deleted.
  virtual Result<std::optional<LoopDevice>> FindByTag(std::string_view tag) = 0;
  /// Success when it is gone or belongs to another file by now. kBusy while a device above or an
  /// opener holds it: the kernel would otherwise detach it behind our back later.
  virtual Result<> Detach(const LoopDevice& loop) = 0;
  /// How many block devices (dm) stand on it.
  virtual Result<int> Holders(const LoopDevice& loop) = 0;
  /// All whose tag begins with `prefix`.
  virtual Result<std::vector<LoopDevice>> List(std::string_view prefix = kLoopPrefix) = 0;
};

/// The kernel's. Device nodes are made in `node_directory`, on a file system mounted without nodev
/// (/dev of a pod has only the loops that were there when it started).
Result<std::unique_ptr<LoopDevices>> OpenLoopDevices(const std::string& node_directory);

}  // namespace dormouse::host
