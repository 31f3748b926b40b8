// Starts a VMM outside the agent's lifetime and with nothing but its own: own cgroup, uid, root
// file system, network, IPC and UTS namespaces, no capability, no_new_privs, no file descriptor of
// ours. The work is done by dormouse-launch (node-agent/launch), a small static program.
//
// The VMM is never our child: it is the init process's from its first instruction, so it is the
// same to us before and after a restart of the agent. Thread-safe.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "node-agent/host/device_number.h"
#include "node-agent/host/mounts.h"
#include "node-agent/host/process.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {

/// A file or directory of the node, as the VMM sees it.
struct LaunchBind {
  std::string host_path;   ///< in the host's mount namespace
  std::string inner_path;  ///< absolute; missing directories above it are made
  bool writable = false;
  bool executable = false;
};

/// A device node in the VMM's own /dev, owned by its uid, mode 0600.
struct LaunchDevice {
  std::string inner_path;  ///< "/dev/disk"
  DeviceNumber number;
  bool block = true;
};

struct LaunchSpec {
  std::string name;                  ///< for messages: the sandbox's short id
  std::vector<std::string> command;  ///< command[0] is an inner path
  uid_t uid = 0;                     ///< not 0; no other process has it
  gid_t gid = 0;
  std::vector<LaunchBind> binds;
  std::vector<LaunchDevice> devices;  ///< beside null, zero, urandom, kvm and net/tun
  bool system_libraries =
      false;        ///< /usr, /lib, /lib64, /bin, read-only: for a VMM that is not static
  int cgroup = -1;  ///< Cgroups::OpenDirectory
  int netns = -1;   ///< OpenNetNs
  int log = -1;     ///< stdout and stderr; -1 = /dev/null
  uint64_t max_open_files = 1024;  ///< v53.0 has some 60, and one for each connection to its guest
  /// Of each file that it writes; a write beyond it ends the VMM (SIGXFSZ). Devices have no limit.
  uint64_t max_file_bytes = 64 << 20;
  int oom_score_adjust = 0;
};

struct LaunchedProcess {
  ProcessIdentity identity;
  UniqueFd pidfd;
};

struct LauncherConfig {
  std::string program;  ///< dormouse-launch, as we see it
  std::string
      mount_point;  ///< an empty directory on the node, over which each VMM's root is mounted
  std::chrono::milliseconds timeout{5000};
};

/// Returns once the VMM's program has been executed (its API socket is not there yet). On failure
/// no process is left, and the error is the failing step's: "launch 3f2a...: bind /x: ENOENT".
Result<LaunchedProcess> Launch(const HostNamespaces& host, const LauncherConfig& config,
                               const LaunchSpec& spec);

/// Whether an ELF program names an interpreter (PT_INTERP) and so needs the node's libraries.
Result<bool> IsDynamicallyLinked(const std::string& program);

}  // namespace dormouse::host
