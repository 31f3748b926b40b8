// Control groups, version 2 (Documentation/admin-guide/cgroup-v2.rst): the truth about a VMM is
// which processes are in its group.
//
// Thread-safe. Groups are <mount point>/<slice>/<name>; the slice is ours alone (single-writer
// rule).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/common/base/clock.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {

struct CgroupLimits {
  std::optional<uint64_t> memory_max_bytes{};
  std::optional<uint64_t> pids_max{};
  std::optional<uint64_t> cpu_max{};  ///< whole processors
  /// Of processor time, and of I/O where the node's kernel weighs that, against the other groups of
  /// the slice: 1 to 10,000; a group without has 100.
  std::optional<uint64_t> weight{};
};

struct CgroupConfig {
  std::string mount_point = "/sys/fs/cgroup";
  std::string slice = "dormouse.slice";
  /// False on machines whose controllers are bound to cgroup v1 (tests): groups then have no
  /// limits.
  bool require_controllers = true;
};

class Cgroups {
 public:
  /// Makes the slice and enables the memory, pids, cpu and io controllers down to it. kUnsupported
  /// when the mount point is no cgroup2, or lacks a controller that is required; io never is.
  static Result<Cgroups> Open(CgroupConfig config);

  /// Idempotent; sets the limits anew.
  Result<> Create(const std::string& name, const CgroupLimits& limits) const;
  /// The group's directory, for a process to be born into (CLONE_INTO_CGROUP, Linux 5.7): moving
  /// one in by cgroup.procs waits for an RCU grace period, some 10 ms.
  Result<UniqueFd> OpenDirectory(const std::string& name) const;
  /// Processes in the group; none when there is no such group. Zombies are not listed.
  Result<std::vector<pid_t>> Processes(const std::string& name) const;
  [[nodiscard]] bool Exists(const std::string& name) const;
  /// SIGKILL to all in it (cgroup.kill, or one by one before Linux 5.14). Success when it is not
  /// there.
  Result<> Kill(const std::string& name) const;
  /// Waits on cgroup.events, not in a loop, until no process is left; kDeadline after `timeout`.
  Result<> WaitEmpty(const std::string& name, std::chrono::milliseconds timeout) const;
  /// Stops all in it, until Thaw, whoever asked for that: none of them runs when it returns. They
  /// can be killed. kDeadline after `timeout`, and they go on.
  Result<> Freeze(const std::string& name, std::chrono::milliseconds timeout) const;
  /// Success when it is not frozen, or not there.
  Result<> Thaw(const std::string& name) const;
  [[nodiscard]] bool IsFrozen(const std::string& name) const;
  /// Success when it is not there; kBusy while processes are in it.
  Result<> Remove(const std::string& name) const;
  Result<std::vector<std::string>> List() const;
  [[nodiscard]] std::string PathOf(const std::string& name) const;
  /// As the /proc/<pid>/cgroup of who is in it ends: Jail.
  [[nodiscard]] std::string MembershipOf(const std::string& name) const {
    return config_.slice + "/" + name;
  }

 private:
  explicit Cgroups(CgroupConfig config) : config_(std::move(config)) {}
  CgroupConfig config_;
};

}  // namespace dormouse::host
