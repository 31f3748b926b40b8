#include "node-agent/host/mounts.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <thread>

namespace dormouse::host {
namespace {

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

Result<> DetachMount(const std::string& path) {
  if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return {};
  if (errno == EINVAL || errno == ENOENT) return {};  // not a mount point, or not there
  return FailErrno("unmount " + path);
}

}  // namespace dormouse::host
