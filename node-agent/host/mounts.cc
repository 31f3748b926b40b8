#include "node-agent/host/mounts.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <sstream>
#include <thread>

#include "src/common/base/files.h"

namespace dormouse::host {
namespace {

constexpr size_t kMaxMountTable = size_t{16} << 20;

// Invalid when `path` is the namespace that we are in anyway.
Result<UniqueFd> OpenOther(const std::string& path, const std::string& own_path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return FailErrno("open " + path);
  struct stat theirs {};
  struct stat ours {};
  if (::fstat(fd.get(), &theirs) != 0) return FailErrno("stat " + path);
  if (::stat(own_path.c_str(), &ours) != 0) return FailErrno("stat " + own_path);
  if (theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino) return UniqueFd();
  return fd;
}

}  // namespace

Result<HostNamespaces> HostNamespaces::Open(const std::string& where) {
  HostNamespaces namespaces;
  if (where == "self") return namespaces;
  DORMOUSE_ASSIGN(namespaces.mount_, OpenOther(where + "/mnt", "/proc/self/ns/mnt"));
  return namespaces;
}

Result<> HostNamespaces::RunInMounts(const std::function<Result<>()>& work) const {
  if (!mount_) return work();
  Result<> result;
  std::thread([&] {
    // setns(CLONE_NEWNS) wants a root and working directory that no other thread shares.
    if (::unshare(CLONE_FS) != 0 || ::setns(mount_.get(), CLONE_NEWNS) != 0) {
      result = FailErrno("enter the host's mount namespace");
      return;
    }
    result = work();
  }).join();
  return result;
}

Result<> MountBoundedFiles(const std::string& path, const BoundedFiles& files) {
  const std::string owner = std::to_string(files.owner);
  const std::string options = "mode=0700,uid=" + owner + ",gid=" + owner +
                              ",size=" + std::to_string(files.bytes) +
                              ",nr_inodes=" + std::to_string(files.names);
  if (::mount("dormouse", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              options.c_str()) != 0) {
    return FailErrno("mount tmpfs on " + path);
  }
  return {};
}

bool IsMountPoint(const std::string& path) {
  struct statx info {};
  return ::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, 0, &info) == 0 &&
         (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

Result<std::vector<std::string>> MountPointsIn(const std::string& path) {
  DORMOUSE_ASSIGN(const std::string table, ReadFile("/proc/self/mountinfo", kMaxMountTable));
  std::vector<std::string> names;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    // proc(5): id, parent, device, root, mount point.
    std::istringstream fields(line);
    std::string place;
    for (int field = 0; field < 5; ++field) fields >> place;
    if (!place.starts_with(path + "/")) continue;
    std::string name = place.substr(path.size() + 1);
    if (name.find('/') == std::string::npos) names.push_back(std::move(name));
  }
  return names;
}

Result<> DetachMount(const std::string& path) {
  if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return {};
  if (errno == EINVAL || errno == ENOENT) return {};  // not a mount point, or not there
  return FailErrno("unmount " + path);
}

}  // namespace dormouse::host
