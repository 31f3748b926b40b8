#include "node-agent/guest/vsock_dial.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "src/common/guest/frame.h"

namespace dormouse {
namespace {

/// "OK " and a port number: the VMM's answer is never longer.
constexpr size_t kMaxHandshake = 32;

bool IsHandshake(std::string_view line) {
  if (!line.starts_with("OK ") || line.size() < 4) return false;
  return std::all_of(line.begin() + 3, line.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

Result<UniqueFd> ConnectVsock(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof(address.sun_path)) {
    return Fail(ErrorCode::kInvalid, "vsock socket path is too long: " + socket_path);
  }
  std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return FailErrno("socket");
  while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    // EAGAIN: the VMM's backlog is full. There is no descriptor to wait on, so: not now.
    const int errnum = errno;
    if (errnum == EINTR) continue;
    Error error = Error::FromErrno("connect " + socket_path, errnum);
    const bool absent = errnum == ENOENT || errnum == ECONNREFUSED || errnum == EAGAIN;
    return Fail(absent ? error.WithCode(ErrorCode::kUnavailable) : error);
  }
  return fd;
}

std::string VsockOpening(std::string_view first) {
  std::string opening = "CONNECT " + std::to_string(guest::kVsockPort) + "\n";
  opening += first;
  return opening;
}

Result<size_t> HandshakeBytes(std::string_view seen) {
  const size_t end = seen.find('\n');
  if (end == std::string_view::npos ? seen.size() > kMaxHandshake : end > kMaxHandshake) {
    return Fail(ErrorCode::kCorrupt, "vsock handshake without an end");
  }
  if (end == std::string_view::npos) return 0;
  if (!IsHandshake(seen.substr(0, end))) {
    return Fail(ErrorCode::kCorrupt, "vsock handshake is not OK <port>");
  }
  return end + 1;
}

}  // namespace dormouse
