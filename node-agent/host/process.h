// Processes that are not our children: told by pid and start time and boot, held by pidfd.
//
// Thread-safe. A pid alone names nobody: it is reused, and after a boot it means another machine's
// life. What is to be known of a process, its memory too, is asked of Process, which cannot be
// mistaken for a later process; there is no other way to read another process's memory here.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {

struct ProcessIdentity {
  pid_t pid = 0;
  uint64_t start_time = 0;  ///< clock ticks since boot: /proc/<pid>/stat field 22
  std::string boot_id;      ///< /proc/sys/kernel/random/boot_id
  bool operator==(const ProcessIdentity&) const = default;
};

Result<std::string> BootId();
/// kNotFound when there is no such process, or it is a zombie.
Result<ProcessIdentity> IdentityOf(pid_t pid);
/// Fields 3 and 22 of a /proc/<pid>/stat line, whatever the command's name contains. Pure.
struct ProcessStat {
  char state = '?';
  uint64_t start_time = 0;
};
Result<ProcessStat> ParseProcessStat(const std::string& line);

/// How the process behind `pidfd` ended, as wait(2) gives it; nothing while it runs, or where the
/// kernel does not say (before Linux 6.15) as it is not our child.
std::optional<int> ExitStatusOf(int pidfd);

/// What a VMM is confined by, and nobody else on the node has: launch.h.
struct Jail {
  uid_t uid = 0;
  std::string cgroup;  ///< Cgroups::MembershipOf
};
/// Whether a process that had this pid and uid a moment ago (a unix socket's peer) is in the jail.
/// kPermission when it is not, or is no more.
Result<> CheckJail(pid_t pid, uid_t uid, const Jail& jail);
/// The cgroup2 group in the text of a /proc/<pid>/cgroup, without the leading "/"; empty where
/// there is none. Pure.
[[nodiscard]] std::string_view CgroupIn(std::string_view text);

class Process {
 public:
  /// The process of that identity; kNotFound when it has exited (a zombie has) or its pid is
  /// another's, kPermission when it is not in the jail's cgroup.
  static Result<Process> Open(const ProcessIdentity& identity, const Jail& jail);

  [[nodiscard]] const ProcessIdentity& identity() const { return identity_; }
  /// The path of a file below its /proc/<pid>, which was opened once: never another process's,
  /// whatever becomes of the number. Of use while this lives; kNotFound once it has exited.
  [[nodiscard]] std::string ProcFile(const std::string& name) const;
  /// Its memory at `address`, all of it. kUnavailable when it has exited: then `into` may hold
  /// anything.
  Result<> ReadMemory(uint64_t address, char* into, size_t size) const;
  /// Readable once it has exited: for poll() or an event loop.
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  [[nodiscard]] bool HasExited() const;
  /// Success when it has exited already.
  Result<> Signal(int signal) const;
  /// kDeadline when it lives on after `timeout`.
  Result<> WaitExit(std::chrono::milliseconds timeout) const;

 private:
  Process(ProcessIdentity identity, UniqueFd pidfd, UniqueFd directory)
      : identity_(std::move(identity)),
        pidfd_(std::move(pidfd)),
        directory_(std::move(directory)) {}
  ProcessIdentity identity_;
  UniqueFd pidfd_;
  UniqueFd directory_;  ///< /proc/<pid>
};

}  // namespace dormouse::host
