#include "node-agent/serve/stream_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "src/common/base/unix_socket.h"

namespace dormouse {
namespace {
constexpr size_t kSocketReadBytes = 32 * 1024;
}  // namespace

StreamSocket::StreamSocket(UniqueFd socket) : socket_(std::move(socket)) {
  (void)::fcntl(socket_.get(), F_SETFL, ::fcntl(socket_.get(), F_GETFL) | O_NONBLOCK);
}

void StreamSocket::Abort() const {
  (void)::shutdown(socket_.get(), SHUT_RDWR);
}

Result<StreamSocket> StreamSocket::Connect(const std::string& path) {
  DORMOUSE_ASSIGN(UniqueFd socket, ConnectUnix(path));
  return StreamSocket(std::move(socket));
}

Result<> StreamSocket::Wait(short events, Time deadline, int stop_fd) const {
  for (;;) {
    const auto rest =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (rest.count() <= 0) return Fail(ErrorCode::kDeadline, "the peer took too long");
    pollfd polled[2] = {{socket_.get(), events, 0}, {stop_fd, POLLIN, 0}};
    const int ready = ::poll(polled, 2, static_cast<int>(std::min<int64_t>(rest.count(), 60'000)));
    if (ready < 0 && errno != EINTR) return FailErrno("poll");
    if (ready <= 0) continue;
    if (polled[1].revents != 0) return Fail(ErrorCode::kCancelled, "the agent is stopping");
    return {};
  }
}

Result<std::string> StreamSocket::ReadLine(size_t max_bytes, Time deadline, int stop_fd) {
  std::string line;
  for (;;) {
    DORMOUSE_TRY(Wait(POLLIN, deadline, stop_fd));
    char buffer[4096];
    // Peeked first, so that what follows the newline stays for the decoder.
    const ssize_t seen = ::recv(socket_.get(), buffer, sizeof(buffer), MSG_PEEK | MSG_DONTWAIT);
    if (seen < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (seen < 0) return FailErrno("read");
    if (seen == 0) return Fail(ErrorCode::kUnavailable, "the peer hung up");
    const std::string_view bytes(buffer, static_cast<size_t>(seen));
    const size_t newline = bytes.find('\n');
    const size_t taken = newline == std::string_view::npos ? bytes.size() : newline + 1;
    if (::recv(socket_.get(), buffer, taken, MSG_DONTWAIT) != static_cast<ssize_t>(taken)) {
      return Fail(ErrorCode::kInternal, "bytes that were there are gone");
    }
    line.append(buffer, newline == std::string_view::npos ? taken : newline);
    if (line.size() > max_bytes) return Fail(ErrorCode::kInvalid, "a request that is too long");
    if (newline != std::string_view::npos) return line;
  }
}

Result<bool> StreamSocket::Fill() {
  char buffer[kSocketReadBytes];
  const ssize_t got = ::recv(socket_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got < 0) return FailErrno("read");
  if (got == 0) return false;
  decoder_.Append({buffer, static_cast<size_t>(got)});
  return true;
}

Result<> StreamSocket::Flush() {
  while (queued() > 0) {
    const ssize_t put =
        ::send(socket_.get(), outgoing_.data() + sent_, queued(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN) return {};
    if (put < 0) return FailErrno("write");
    sent_ += static_cast<size_t>(put);
  }
  outgoing_.clear();
  sent_ = 0;
  return {};
}

Result<> StreamSocket::FlushAll(Time deadline, int stop_fd) {
  for (;;) {
    DORMOUSE_TRY(Flush());
    if (queued() == 0) return {};
    DORMOUSE_TRY(Wait(POLLOUT, deadline, stop_fd));
  }
}

}  // namespace dormouse
