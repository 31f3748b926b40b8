// The guest's server: health, configuration, the workload, exec and logs, for the host on vsock.
//
// One thread, one epoll loop, every buffer bounded. PID 1 of a guest runs it on AF_VSOCK; a
// stand-in for a whole VM hands it its connections by Adopt.
#pragma once

#include <signal.h>

#include <chrono>
#include <memory>
#include <string>

#include "guest-agent/server/machine.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"
#include "src/common/guest/frame.h"

namespace dormouse::guest {

struct ServerOptions {
  std::string agent_version = "0";
  /// A cgroup v2 directory of ours in which `workload` and `exec` are made; empty: no cgroups.
  std::string cgroup_dir = {};
  /// We are PID 1, and InitSignals are blocked in every thread: whatever ended is reaped, and the
  /// signals by which the tools of a distribution ask init to stop do so.
  bool is_init = false;
  size_t log_bytes = 256 * 1024;                 ///< kept of the workload's output
  size_t max_connections = 64;                   ///< one more closes the oldest idle one, or itself
  std::chrono::milliseconds idle_limit{30'000};  ///< for a control connection between requests
  std::chrono::milliseconds first_request_limit{10'000};
  /// Programs that a clone runs before its processes go on (clone_hooks.h); empty: none.
  std::string hook_dir = {};
  std::chrono::milliseconds hook_limit{3'000};  ///< for each of them
};

class Server {
 public:
  /// `machine` must outlive the server. `listener` may be none: then connections come by Adopt.
  [[nodiscard]] static Result<std::unique_ptr<Server>> Create(UniqueFd listener, Machine& machine,
                                                              ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Serves until Stop. Destroying the server afterwards kills what it still runs.
  void Run();
  /// From any thread.
  void Stop();
  /// From any thread: serves a connected stream as if it had been accepted.
  void Adopt(UniqueFd connection);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// SIGCHLD, and what asks an init to stop: of busybox, SIGUSR1 (halt), SIGUSR2 (poweroff) and
/// SIGTERM (reboot); of the kernel, SIGINT (Ctrl-Alt-Del: reboot) and SIGPWR (power fails:
/// poweroff); of systemd, SIGRTMIN+3 (halt), +4 (poweroff) and +5 (reboot).
[[nodiscard]] sigset_t InitSignals();

/// A non-blocking, close-on-exec listener.
[[nodiscard]] Result<UniqueFd> ListenVsock(uint32_t port);

}  // namespace dormouse::guest
