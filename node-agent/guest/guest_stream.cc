#include "node-agent/guest/guest_stream.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "node-agent/guest/vsock_dial.h"
#include "src/common/guest/messages.h"

namespace dormouse {
namespace {

constexpr size_t kReadBytes = 32 * 1024;

/// True when `events` (or an error condition, which the next call tells) came before the deadline.
/// Looks once, too, when that has passed already.
Result<bool> WaitFor(int fd, short events, Deadline deadline) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd wait{fd, events, 0};
    const int64_t capped = std::clamp<int64_t>(left.count(), 0, 60'000);
    const int ready = ::poll(&wait, 1, static_cast<int>(capped));
    if (ready > 0) return true;
    if (ready == 0 && capped >= left.count()) return false;
    if (ready < 0 && errno != EINTR) return FailErrno("poll guest connection");
  }
}

Error HungUp(std::string_view when) {
  return {ErrorCode::kUnavailable, "guest hung up " + std::string(when)};
}

}  // namespace

Result<GuestStream> GuestStream::Dial(const host::VmmSocket& socket, std::string_view first,
                                      Deadline deadline) {
  DORMOUSE_ASSIGN(UniqueFd fd, host::ConnectVmm(socket));
  if (deadline <= std::chrono::steady_clock::now()) {
    return Fail(ErrorCode::kDeadline, "connect " + socket.path);
  }
  GuestStream stream(std::move(fd));
  DORMOUSE_TRY(stream.Send(VsockOpening(first), deadline));
  DORMOUSE_TRY(stream.ReadHandshake(deadline));
  return stream;
}

Result<void> GuestStream::ReadHandshake(Deadline deadline) {
  std::string seen;
  for (;;) {
    auto more = ReadSome(seen, deadline);
    if (!more) return Fail(more.error());
    if (!*more) return Fail(ErrorCode::kDeadline, "guest agent does not answer yet");
    DORMOUSE_ASSIGN(const size_t line, HandshakeBytes(seen));
    if (line == 0) continue;
    decoder_.Append(std::string_view(seen).substr(line));
    return {};
  }
}

Result<bool> GuestStream::ReadSome(std::string& into, Deadline deadline) {
  for (;;) {
    DORMOUSE_ASSIGN(const bool ready, WaitFor(fd_.get(), POLLIN, deadline));
    if (!ready) return false;
    const size_t before = into.size();
    into.resize(before + kReadBytes);
    const ssize_t got = ::recv(fd_.get(), into.data() + before, kReadBytes, MSG_DONTWAIT);
    const int errnum = errno;
    into.resize(before + (got > 0 ? static_cast<size_t>(got) : 0));
    if (got > 0) return true;
    if (got == 0)
      return Fail(HungUp(decoder_.HasPartialFrame() ? "in a frame" : "before it answered"));
    if (errnum == EAGAIN || errnum == EINTR) continue;
    return Fail(Error::FromErrno("read from guest", errnum).WithCode(ErrorCode::kUnavailable));
  }
}

Result<void> GuestStream::Send(std::string_view frames, Deadline deadline) {
  while (!frames.empty()) {
    const ssize_t sent =
        ::send(fd_.get(), frames.data(), frames.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      frames.remove_prefix(static_cast<size_t>(sent));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) {
      return Fail(Error::FromErrno("write to guest", errno).WithCode(ErrorCode::kUnavailable));
    }
    DORMOUSE_ASSIGN(const bool ready, WaitFor(fd_.get(), POLLOUT, deadline));
    if (!ready) return Fail(ErrorCode::kDeadline, "guest does not read");
  }
  return {};
}

Result<std::optional<guest::Frame>> GuestStream::Next(Deadline deadline) {
  for (;;) {
    auto frame = decoder_.Next();
    if (!frame) return Fail(frame.error().Wrap("guest"));
    if (*frame) return frame;
    incoming_.clear();
    DORMOUSE_ASSIGN(const bool more, ReadSome(incoming_, deadline));
    if (!more) return std::nullopt;
    decoder_.Append(incoming_);
  }
}

Result<std::string_view> GuestStream::Reply(Deadline deadline) {
  DORMOUSE_ASSIGN(const auto frame, Next(deadline));
  if (!frame) return Fail(ErrorCode::kDeadline, "guest did not answer in time");
  if (frame->type == guest::FrameType::kError) {
    return Fail(guest::ParseError(frame->payload).Wrap("guest"));
  }
  if (frame->type != guest::FrameType::kReply || frame->flags != 0) {
    return Fail(ErrorCode::kCorrupt, "guest answered a request with a frame of another kind");
  }
  return frame->payload;
}

void GuestStream::Abort() {
  (void)::shutdown(fd_.get(), SHUT_RDWR);
}

}  // namespace dormouse
