#include "node-agent/guest/guest_session.h"

#include <algorithm>

namespace dormouse {
namespace {
using guest::FrameType;
/// What a guest may take to read what is a window at most.
constexpr std::chrono::seconds kSendLimit{10};
constexpr size_t kStdinChunk = 16 * 1024;
}  // namespace

Result<std::optional<GuestEvent>> GuestSession::Next(Deadline deadline) {
  if (ended_) return Fail(ErrorCode::kCancelled, "guest session is over");
  const auto fail = [this](Error error) {
    ended_ = true;
    Abort();
    return Fail(std::move(error));
  };
  if (auto granted = GrantTaken(); !granted) return fail(granted.error());
  for (;;) {
    auto frame = stream_.Next(deadline);
    if (!frame) return fail(frame.error());
    if (!*frame) return std::nullopt;
    auto event = Interpret(**frame);
    if (!event) return fail(event.error());
    if (*event) return event;
    if (std::chrono::steady_clock::now() >= deadline) return std::nullopt;
  }
}

Result<std::optional<GuestEvent>> GuestSession::Interpret(const guest::Frame& frame) {
  switch (frame.type) {
    case FrameType::kStdout:
    case FrameType::kStderr: {
      auto event = TakeOutput(frame, frame.type == FrameType::kStdout ? out_window_ : err_window_);
      if (!event) return Fail(event.error());
      if (event->data.empty())
        return std::nullopt;  // the end of a stream is no news: kExit follows
      return *std::move(event);
    }
    case FrameType::kWindow: {
      DORMOUSE_ASSIGN(const guest::WindowGrant grant, guest::DecodeWindow(frame.payload));
      // A grant of nothing is noise that would cost nothing to send for ever.
      if (grant.stream != FrameType::kStdin || grant.bytes == 0) break;
      {
        const std::lock_guard lock(mutex_);
        DORMOUSE_TRY(in_window_.Grant(grant.bytes));
      }
      granted_.notify_all();
      return GuestEvent{GuestEvent::Kind::kStdinReady, {}, false, {}};
    }
    case FrameType::kExit: {
      DORMOUSE_ASSIGN(const guest::ExitStatus status, guest::DecodeExit(frame.payload));
      ended_ = true;
      Abort();
      return GuestEvent{GuestEvent::Kind::kExit, {}, false, status};
    }
    case FrameType::kError:
      return Fail(ErrorCode::kUnavailable, "guest ended the session");
    default:
      break;
  }
  return Fail(ErrorCode::kCorrupt, "guest sent a frame that has no place in a session");
}

Result<GuestEvent> GuestSession::TakeOutput(const guest::Frame& frame, guest::Window& window) {
  bool& closed = frame.type == FrameType::kStdout ? out_closed_ : err_closed_;
  const bool last = (frame.flags & guest::kFlagEnd) != 0;
  if (closed || (frame.payload.empty() && !last)) {
    return Fail(ErrorCode::kCorrupt, "guest sent an empty frame, or output after its end");
  }
  closed = last;
  DORMOUSE_TRY(window.Take(frame.payload.size()));
  taken_ = {frame.type, static_cast<uint32_t>(frame.payload.size())};
  const auto kind =
      frame.type == FrameType::kStdout ? GuestEvent::Kind::kStdout : GuestEvent::Kind::kStderr;
  return GuestEvent{kind, std::string(frame.payload), (frame.flags & guest::kFlagLost) != 0, {}};
}

Result<void> GuestSession::GrantTaken() {
  if (taken_.bytes == 0) return {};
  const guest::WindowGrant grant = taken_;
  taken_.bytes = 0;
  DORMOUSE_TRY((grant.stream == FrameType::kStdout ? out_window_ : err_window_).Grant(grant.bytes));
  return SendNow(guest::EncodeWindow(grant));
}

Result<void> GuestSession::SendNow(std::string_view frames) {
  const std::lock_guard lock(mutex_);
  return stream_.Send(frames, std::chrono::steady_clock::now() + kSendLimit);
}

Result<size_t> GuestSession::TryWriteStdin(std::string_view data) {
  const std::lock_guard lock(mutex_);
  if (broken_) return Fail(ErrorCode::kCancelled, "guest session is over");
  if (in_closed_) return Fail(ErrorCode::kInvalid, "stdin is closed");
  size_t sent = 0;
  while (sent < data.size() && in_window_.available() > 0) {
    const size_t count =
        std::min({data.size() - sent, size_t{in_window_.available()}, kStdinChunk});
    DORMOUSE_TRY(in_window_.Take(count));
    DORMOUSE_TRY(stream_.Send(guest::EncodeFrame(FrameType::kStdin, data.substr(sent, count)),
                              std::chrono::steady_clock::now() + kSendLimit));
    sent += count;
  }
  return sent;
}

Result<void> GuestSession::WriteStdin(std::string_view data, Deadline deadline) {
  while (!data.empty()) {
    DORMOUSE_ASSIGN(const size_t sent, TryWriteStdin(data));
    data.remove_prefix(sent);
    if (data.empty()) break;
    std::unique_lock lock(mutex_);
    const bool ready = granted_.wait_until(
        lock, deadline, [this] { return broken_ || in_window_.available() > 0; });
    if (!ready) return Fail(ErrorCode::kDeadline, "command in the guest does not read its input");
  }
  return {};
}

Result<void> GuestSession::CloseStdin() {
  {
    const std::lock_guard lock(mutex_);
    if (in_closed_) return {};
    in_closed_ = true;
  }
  return SendNow(guest::EncodeFrame(FrameType::kStdin, {}, guest::kFlagEnd));
}

Result<void> GuestSession::Resize(guest::TerminalSize size) {
  return SendNow(guest::EncodeResize(size));
}

Result<void> GuestSession::Signal(uint8_t number) {
  if (number < 1 || number > 64) {
    return Fail(ErrorCode::kInvalid, "signal " + std::to_string(number));
  }
  return SendNow(guest::EncodeSignal(number));
}

void GuestSession::Abort() {
  stream_.Abort();
  {
    const std::lock_guard lock(mutex_);
    broken_ = true;
  }
  granted_.notify_all();
}

}  // namespace dormouse
