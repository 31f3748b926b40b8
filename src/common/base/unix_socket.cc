#include "src/common/base/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace dormouse {
namespace {

constexpr int kKnockAgainMs = 5;

Result<sockaddr_un> AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return Fail(ErrorCode::kInvalid, "a socket's path has 1 to 107 bytes: " + path);
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<UniqueFd> NewSocket() {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return FailErrno("socket");
  return socket;
}

}  // namespace

Result<UniqueFd> ConnectUnix(const std::string& path, std::chrono::milliseconds timeout) {
  const UniqueFd file(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!file) return FailErrno("connect to " + path);
  return ConnectUnix(file, path, timeout);
}

Result<UniqueFd> ConnectUnix(const UniqueFd& file, const std::string& shown,
                             std::chrono::milliseconds timeout) {
  DORMOUSE_ASSIGN(const sockaddr_un address,
                  AddressOf("/proc/self/fd/" + std::to_string(file.get())));
  DORMOUSE_ASSIGN(UniqueFd socket, NewSocket());
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) !=
         0) {
    const int failed = errno;
    if (failed == EINTR) continue;
    // The backlog is full. There is no descriptor that tells when it is not.
    if (failed != EAGAIN || std::chrono::steady_clock::now() >= deadline)
      return FailErrno("connect to " + shown, failed);
    (void)::poll(nullptr, 0, kKnockAgainMs);
  }
  return socket;
}

Result<UniqueFd> ListenUnix(const std::string& path, int backlog) {
  const std::string what = "listen on " + path;
  DORMOUSE_ASSIGN(const sockaddr_un address, AddressOf(path));
  DORMOUSE_ASSIGN(UniqueFd socket, NewSocket());
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const Error failed = Error::FromErrno(what, errno);
    return Fail(failed.errnum() == EADDRINUSE ? failed.WithCode(ErrorCode::kBusy) : failed);
  }
  // Nobody can connect before listen().
  if (::chmod(path.c_str(), 0600) != 0 || ::listen(socket.get(), backlog) != 0)
    return FailErrno(what);
  return socket;
}

Result<> RemoveDeadSocket(const std::string& path) {
  const auto other = ConnectUnix(path);
  if (other) return Fail(ErrorCode::kBusy, path + ": somebody listens there");
  // EAGAIN: somebody does, and has many who wait.
  if (other.error().errnum() == EAGAIN) return Fail(other.error().WithCode(ErrorCode::kBusy));
  // Of a file that is no socket, connect(2) says the same: that stays, and is in the way.
  struct stat info {};
  if (other.error().errnum() == ECONNREFUSED && ::lstat(path.c_str(), &info) == 0 &&
      S_ISSOCK(info.st_mode)) {
    (void)::unlink(path.c_str());
  }
  return {};
}

Result<UnixPeer> PeerOf(const UniqueFd& socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    return FailErrno("ask who the peer is");
  return UnixPeer{peer.pid, peer.uid};
}

}  // namespace dormouse
