// The agent's local socket, <run>/agent.sock: mode 0600, and the peer's uid is asked of the kernel
// (SO_PEERCRED), so only root on this node speaks here. ctl_protocol.h says what.
//
// One thread accepts; each client has a thread of its own, up to a bound. Listen, Start, Stop and
// the destructor belong to the owner's thread. Stop ends streams at once and waits for requests in
// progress.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "node-agent/record/paths.h"
#include "node-agent/sandbox/view.h"
#include "node-agent/serve/ctl_connection.h"
#include "node-agent/serve/stream_socket.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse {

struct ControlServerOptions {
  Paths paths;  ///< the socket is paths.ControlSocket()
  uid_t allowed_uid = 0;
  size_t max_clients = 64;  ///< one more ends the oldest idle one, or is told kBusy
  std::chrono::milliseconds request_time{5'000};
  std::chrono::milliseconds guest_time{10'000};
};

class ControlServer {
 public:
  /// Binds; a socket file that nobody listens on is replaced. kBusy: another agent runs. `view`
  /// must outlive it.
  [[nodiscard]] static Result<std::unique_ptr<ControlServer>> Listen(AgentView& view,
                                                                     ControlServerOptions options);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  void Start();
  void Stop();

 private:
  struct Client {
    explicit Client(StreamSocket connected) : socket(std::move(connected)) {}
    StreamSocket socket;
    std::atomic<bool> asked{false};  ///< its request has arrived
    std::atomic<bool> done{false};
    std::thread thread;
  };

  ControlServer(AgentView& view, ControlServerOptions options, UniqueFd listener, UniqueFd stop,
                ino_t inode);
  void AcceptLoop();
  void Admit(UniqueFd socket);
  /// Joins the threads of clients that are done (or all), and returns how many are left.
  size_t Reap(bool all);
  /// Ends the oldest client that has asked for nothing yet; false: all have.
  bool ShedOldestIdle();

  AgentView& view_;
  const ControlServerOptions options_;
  UniqueFd listener_;
  UniqueFd stop_;  ///< an eventfd, readable from Stop on
  const ino_t inode_;
  std::list<Client> clients_;  ///< of the accepting thread, then of Stop
  std::thread acceptor_;
};

}  // namespace dormouse
