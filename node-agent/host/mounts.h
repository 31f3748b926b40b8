// Mounts, in our own mount namespace or in the host's. What must outlive the agent's pod (the bind
// mounts that keep network namespaces alive) is mounted in the host's: a pod's mounts die with it.
//
// Thread-safe. The caller has CAP_SYS_ADMIN.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {

/// Which mount namespace is the node's own: PID 1's in a hostPID pod; "self" where the agent runs
/// right on the node, or where PID 1 may not be looked at. (The cgroup namespace of a privileged
/// pod is the node's.)
class HostNamespaces {
 public:
  /// "/proc/1/ns" (the default of the agent), any such directory, or "self".
  static Result<HostNamespaces> Open(const std::string& where);

  /// Runs `work` on a throw-away thread that is in the host's mount namespace, and waits for it.
  Result<> RunInMounts(const std::function<Result<>()>& work) const;
  /// -1 when it is our own already.
  [[nodiscard]] int mount_namespace() const { return mount_.get(); }

 private:
  UniqueFd mount_;
};

/// A file system in memory for what one user may write: however much that is, it fills nothing
/// else.
struct BoundedFiles {
  uid_t owner = 0;  ///< of its root, user and group; nobody else may enter it (0700)
  uint64_t bytes = 0;
  uint64_t names = 0;
};
/// Mounts one on the directory `path`, without set-user-id, devices and programs.
Result<> MountBoundedFiles(const std::string& path, const BoundedFiles& files);

/// Whether something is mounted on `path` itself; no link is followed.
[[nodiscard]] bool IsMountPoint(const std::string& path);

/// The mount points directly below the directory `path`, by name. A name may be told twice.
Result<std::vector<std::string>> MountPointsIn(const std::string& path);

/// Lazy; success when nothing is mounted there.
Result<> DetachMount(const std::string& path);

}  // namespace dormouse::host
