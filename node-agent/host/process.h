// Processes that are not our children: told by pid and start time and boot, held by pidfd.
//
// Thread-safe. A pid alone names nobody: it is reused, and after a boot it means another machine's
// life.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

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

class Process {
 public:
  /// The process of that identity; kNotFound when it has exited (a zombie has) or its pid is
  /// another's.
  static Result<Process> Open(const ProcessIdentity& identity);

  [[nodiscard]] const ProcessIdentity& identity() const { return identity_; }
  /// Readable once it has exited: for poll() or an event loop.
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  [[nodiscard]] bool HasExited() const;
  /// Success when it has exited already.
  Result<> Signal(int signal) const;
  /// kDeadline when it lives on after `timeout`.
  Result<> WaitExit(std::chrono::milliseconds timeout) const;

 private:
  Process(ProcessIdentity identity, UniqueFd pidfd)
      : identity_(std::move(identity)), pidfd_(std::move(pidfd)) {}
  ProcessIdentity identity_;
  UniqueFd pidfd_;
};

}  // namespace dormouse::host
