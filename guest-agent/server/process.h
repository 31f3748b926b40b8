// Starting a program in the guest: user, working directory, cgroup, pipes or a terminal.
//
// Safe in a process with threads: the child does nothing but system calls between fork and exec,
// and why it could not start comes back through a pipe. Children are watched by pidfd (Linux
// >= 5.4).
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "guest-agent/server/passwd.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"
#include "src/common/guest/messages.h"

namespace dormouse::guest {

/// A ProcessSpec after the defaults and the user are known.
struct LaunchPlan {
  std::vector<std::string> argv;
  std::vector<std::string> env;  ///< "NAME=value"
  std::string working_dir;       ///< empty: the user's home if it is there, else "/"
  UserIdentity identity;
  bool tty = false;
  bool stdin_open = false;    ///< false: /dev/null; ignored with a tty
  bool merge_output = false;  ///< stderr into stdout's pipe, so that their order is kept
  TerminalSize size;
  int cgroup_procs_fd = -1;  ///< an open cgroup.procs that it enters first; -1: stays where we are
};

struct Child {
  pid_t pid = -1;
  UniqueFd pidfd;
  UniqueFd in;   ///< what we write; invalid without stdin; with a tty, a duplicate of `out`
  UniqueFd out;  ///< what we read: stdout, or the terminal
  UniqueFd err;  ///< invalid with a tty or merged output
};

/// Merges: built-in PATH and HOME, then `defaults`, then `spec`. kNotFound for an unknown user.
[[nodiscard]] Result<LaunchPlan> MakePlan(const ProcessSpec& spec, const ConfigureRequest& defaults,
                                          const IdentityFiles& files);

/// The child leads a session of its own. Our ends are non-blocking and close-on-exec.
/// kNotFound, kPermission, kUnsupported: the program is not there, or none ("run foo: ENOENT").
/// kInvalid: the working directory cannot be entered. Other codes: no process could be made of it.
[[nodiscard]] Result<Child> Launch(const LaunchPlan& plan);

/// Collects an ended child of ours; nothing while it runs.
[[nodiscard]] std::optional<ExitStatus> Reap(pid_t pid);

}  // namespace dormouse::guest
