#include "node-agent/host/device_node.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "src/common/base/files.h"

namespace dormouse::host {

Result<> MakeDeviceNode(const std::string& path, NodeKind kind, DeviceNumber number, uid_t owner) {
  const mode_t type = kind == NodeKind::kBlock ? S_IFBLK : S_IFCHR;
  struct stat found {};
  if (::lstat(path.c_str(), &found) == 0 && (found.st_mode & S_IFMT) == type &&
      found.st_rdev == number.ToDev() && found.st_uid == owner && (found.st_mode & 07777) == 0600) {
    return {};
  }
  if (const auto slash = path.rfind('/'); slash != std::string::npos && slash > 0) {
    DORMOUSE_TRY(MakeDirectories(path.substr(0, slash), 0755));
  }
  static std::atomic<unsigned> serial{0};
  const std::string temporary =
      path + ".new" + std::to_string(::getpid()) + "-" + std::to_string(serial++);
  if (::mknod(temporary.c_str(), type | 0600, number.ToDev()) != 0)
    return FailErrno("mknod " + temporary);
  // The umask may have taken bits away, and the owner must be right before the name is.
  if (::chmod(temporary.c_str(), 0600) != 0 || ::lchown(temporary.c_str(), owner, owner) != 0 ||
      ::rename(temporary.c_str(), path.c_str()) != 0) {
    auto failure = FailErrno("make device node " + path);
    ::unlink(temporary.c_str());
    return failure;
  }
  return {};
}

}  // namespace dormouse::host
