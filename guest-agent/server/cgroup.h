// One leaf of the guest's cgroup v2 tree (Documentation/admin-guide/cgroup-v2.rst). Without a tree
// (a stand-in guest on a developer's machine) every call is a no-op. Not thread-safe.
#pragma once

#include <string>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::guest {

class Cgroup {
 public:
  /// Makes `<parent>/<name>`; an empty parent gives the no-op one. Parents must be there.
  [[nodiscard]] static Result<Cgroup> Create(const std::string& parent, const std::string& name);

  /// For LaunchPlan::cgroup_procs_fd: -1 in the no-op one.
  [[nodiscard]] int procs_fd() const { return procs_.get(); }
  /// SIGKILL to all that is in it and below (cgroup.kill, Linux >= 5.14).
  void KillAll() const;
  /// Asks that all in it and below stand still, or go on (cgroup.freeze, Linux >= 5.2). The kernel
  /// gets there when each process next meets it: see OpenEvents.
  [[nodiscard]] Result<void> SetFrozen(bool frozen) const;
  /// cgroup.events: gives EPOLLPRI when it changed since it was last read; none in the no-op one.
  [[nodiscard]] UniqueFd OpenEvents() const;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  UniqueFd procs_;
};

/// Whether an OpenEvents file says that all stand still; of none, yes.
[[nodiscard]] bool SaysFrozen(const UniqueFd& events);

}  // namespace dormouse::guest
