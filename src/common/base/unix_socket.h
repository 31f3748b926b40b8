// Unix stream sockets (unix(7)): the one place that fills in a sockaddr_un.
//
// Thread-safe. All sockets here are close-on-exec and non-blocking. Whoever can write the directory
// of a socket decides who listens there: where that may be somebody hostile, look up the name
// beneath the directory, connect to what was found, and ask PeerOf (node-agent/host/vmm_socket.h).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse {

/// Connects to the socket at `path`, which may be of any length. A link as its last component is
/// not followed. kNotFound: no such file; kUnavailable: nobody listens there, or the peer's backlog
/// stayed full for `timeout` (a unix socket's connect waits for nothing else).
Result<UniqueFd> ConnectUnix(const std::string& path,
                             std::chrono::milliseconds timeout = std::chrono::milliseconds(0));
/// Connects to the socket that `file`, opened with O_PATH, is; `shown` is its name in messages.
/// Needs /proc.
Result<UniqueFd> ConnectUnix(const UniqueFd& file, const std::string& shown,
                             std::chrono::milliseconds timeout = std::chrono::milliseconds(0));

/// Listens at `path` (107 bytes at most, else kInvalid), mode 0600. kBusy: something has that name.
Result<UniqueFd> ListenUnix(const std::string& path, int backlog = 64);
/// Removes a socket file that a process has left behind when it was killed. Success when there is
/// none; kBusy when somebody listens there.
Result<> RemoveDeadSocket(const std::string& path);

/// Who called listen(2) on the other side of a connection, or connect(2) where we are the listener
/// (SO_PEERCRED). The process may have ended since.
struct UnixPeer {
  pid_t pid = 0;
  uid_t uid = 0;
};
Result<UnixPeer> PeerOf(const UniqueFd& socket);

}  // namespace dormouse
