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

constexpr size_t kLargestMountTable = 64 << 20;

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

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string Unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
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

Result<std::vector<MountEntry>> ListMounts(const std::string& prefix) {
  DORMOUSE_ASSIGN(const std::string table,
                  ReadFile("/proc/thread-self/mountinfo", kLargestMountTable));
  std::vector<MountEntry> mounts;
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    // 36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw
    std::istringstream fields(line);
    std::string skip;
    std::string root;
    std::string mount_point;
    fields >> skip >> skip >> skip >> root >> mount_point;
    while (fields >> skip && skip != "-") {
    }
    MountEntry entry;
    fields >> entry.file_system >> entry.source;
    entry.root = Unescape(root);
    entry.mount_point = Unescape(mount_point);
    const bool below =
        prefix == "/" || entry.mount_point == prefix || entry.mount_point.starts_with(prefix + "/");
    if (below) mounts.push_back(std::move(entry));
  }
  return mounts;
}

Result<> DetachMount(const std::string& path) {
  if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return {};
  if (errno == EINVAL || errno == ENOENT) return {};  // not a mount point, or not there
  return FailErrno("unmount " + path);
}

}  // namespace dormouse::host
