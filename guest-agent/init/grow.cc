#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statfs.h>

#include <cerrno>
#include <cstring>

#include "guest-agent/init/root_disk.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::guest {
namespace {

// Not in the kernel's exported headers: fs/ext4/ext4.h, fs/xfs/libxfs/xfs_fs.h (Linux 6.1).
constexpr unsigned long kExt4ResizeFs = _IOW('f', 16, uint64_t);

struct XfsGeometryV1 {
  uint32_t blocksize, rtextsize, agblocks, agcount, logblocks, sectsize, inodesize, imaxpct;
  uint64_t datablocks, rtblocks, rtextents, logstart;
  unsigned char uuid[16];
  uint32_t sunit, swidth;
  int32_t version;
  uint32_t flags, logsectsize, rtsectsize, dirblocksize;
};
constexpr unsigned long kXfsGeometryV1 = _IOR('X', 100, XfsGeometryV1);

struct XfsGrowData {
  uint64_t newblocks;
  uint32_t imaxpct;
};
constexpr unsigned long kXfsGrowData = _IOW('X', 110, XfsGrowData);

Result<void> GrowExt4(int root, uint64_t device_bytes) {
  struct statfs info {};
  if (::fstatfs(root, &info) != 0) return FailErrno("statfs /");
  uint64_t blocks = device_bytes / static_cast<uint64_t>(info.f_bsize);
  const int grown = ::ioctl(root, kExt4ResizeFs, &blocks);
  const int errnum = errno;
  // A thread would zero the new inode tables in the guest's first minutes, and each zero would take
  // room in the sandbox's store and in its clones'. What they hold is not read before it is
  // written. Not at the mount: there it makes the growing itself zero them (fs/ext4/resize.c,
  // Linux 6.1).
  const int remounted = ::mount(nullptr, "/", nullptr, MS_REMOUNT, "noinit_itable");
  if (grown != 0) return FailErrno("grow ext4", errnum);
  if (remounted != 0) return FailErrno("remount / with noinit_itable");
  return {};
}

Result<void> GrowXfs(int root, uint64_t device_bytes) {
  XfsGeometryV1 geometry{};
  if (::ioctl(root, kXfsGeometryV1, &geometry) != 0) return FailErrno("ask xfs for its geometry");
  const uint64_t blocks = device_bytes / geometry.blocksize;
  if (blocks <= geometry.datablocks) return {};
  XfsGrowData grow{blocks, geometry.imaxpct};
  if (::ioctl(root, kXfsGrowData, &grow) != 0) return FailErrno("grow xfs");
  return {};
}

Result<void> GrowBtrfs(int root) {
  btrfs_ioctl_vol_args args{};
  std::strcpy(args.name, "max");
  if (::ioctl(root, BTRFS_IOC_RESIZE, &args) != 0) return FailErrno("grow btrfs");
  return {};
}

}  // namespace

Result<void> GrowRoot(const std::string& type, const std::string& device) {
  const UniqueFd disk(::open(device.c_str(), O_RDONLY | O_CLOEXEC));
  if (!disk) return FailErrno("open " + device);
  uint64_t device_bytes = 0;
  if (::ioctl(disk.get(), BLKGETSIZE64, &device_bytes) != 0) return FailErrno("size of " + device);
  const UniqueFd root(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root) return FailErrno("open /");
  if (type == "ext4") return GrowExt4(root.get(), device_bytes);
  if (type == "xfs") return GrowXfs(root.get(), device_bytes);
  if (type == "btrfs") return GrowBtrfs(root.get());
  return {};
}

}  // namespace dormouse::guest
