#include "node-agent/serve/relay.h"

#include <poll.h>

#include <cerrno>

#include "src/common/guest/messages.h"

namespace dormouse {
namespace {

using guest::FrameType;
using std::chrono::milliseconds;

/// How long Next may look for frames that it has read already.
constexpr milliseconds kGlance{1};
/// The guest is asked anew at least so often: Next may leave frames in its buffer, where poll()
/// cannot see them.
constexpr int kTickMs = 100;
/// Given to a client to take the last words.
constexpr milliseconds kParting{5'000};
constexpr uint32_t kGrantStep = guest::kInitialWindow / 4;

class Relayer {
 public:
  Relayer(StreamSocket& client, GuestSession& guest, int stop_fd)
      : client_(client), guest_(guest), stop_fd_(stop_fd) {}

  Result<> Run() {
    for (;;) {
      DORMOUSE_ASSIGN(const bool ended, TakeFromGuest());
      if (ended) return client_.FlushAll(std::chrono::steady_clock::now() + kParting, stop_fd_);
      if (!client_.Flush()) return {};  // hung up
      DORMOUSE_ASSIGN(const bool there, Wait());
      if (!there) return {};
    }
  }

 private:
  /// Hands over what the guest says, as long as the client takes it. True when that was the last.
  Result<bool> TakeFromGuest() {
    while (client_.queued() == 0) {
      auto event = guest_.Next(std::chrono::steady_clock::now() + kGlance);
      if (!event) {
        client_.Queue(guest::EncodeError(event.error().Wrap("the guest")));
        return true;
      }
      if (!*event) return false;
      const uint8_t flags = (*event)->lost ? guest::kFlagLost : uint8_t{0};
      switch ((*event)->kind) {
        case GuestEvent::Kind::kStdout:
          client_.Queue(guest::EncodeFrame(FrameType::kStdout, (*event)->data, flags));
          break;
        case GuestEvent::Kind::kStderr:
          client_.Queue(guest::EncodeFrame(FrameType::kStderr, (*event)->data, flags));
          break;
        case GuestEvent::Kind::kStdinReady:
          PumpStdin();
          break;
        case GuestEvent::Kind::kExit:
          client_.Queue(guest::EncodeExit((*event)->exit));
          return true;
      }
      if (!client_.Flush()) return true;
    }
    return false;
  }

  /// False when the client hung up.
  Result<bool> Wait() {
    const bool waits_for_client = client_.queued() > 0;
    pollfd polled[3] = {
        {client_.fd(), static_cast<short>(waits_for_client ? POLLIN | POLLOUT : POLLIN), 0},
        {waits_for_client ? -1 : guest_.fd(), POLLIN, 0},
        {stop_fd_, POLLIN, 0}};
    if (::poll(polled, 3, kTickMs) < 0 && errno != EINTR) return FailErrno("poll");
    if (polled[2].revents != 0) return Fail(ErrorCode::kCancelled, "the agent is stopping");
    if ((polled[0].revents & (POLLIN | POLLHUP | POLLERR)) == 0) return true;
    const Result<bool> there = client_.Fill();
    if (!there || !*there) return false;
    for (;;) {
      DORMOUSE_ASSIGN(const auto frame, client_.Next());
      if (!frame) return true;
      DORMOUSE_TRY(TakeFromClient(*frame));
    }
  }

  Result<> TakeFromClient(const guest::Frame& frame) {
    switch (frame.type) {
      case FrameType::kStdin:
        DORMOUSE_TRY(stdin_window_.Take(frame.payload.size()));
        stdin_.append(frame.payload);
        if ((frame.flags & guest::kFlagEnd) != 0) stdin_ended_ = true;
        PumpStdin();
        return {};
      case FrameType::kResize: {
        DORMOUSE_ASSIGN(const guest::TerminalSize size, guest::DecodeResize(frame.payload));
        (void)guest_.Resize(size);  // a guest that is gone is heard of by its next event
        return {};
      }
      case FrameType::kSignal: {
        DORMOUSE_ASSIGN(const uint8_t number, guest::DecodeSignal(frame.payload));
        (void)guest_.Signal(number);
        return {};
      }
      default:
        return Fail(ErrorCode::kCorrupt, "a frame that has no place here");
    }
  }

  /// A guest that takes no input any more is heard of by its next event.
  void PumpStdin() {
    if (stdin_closed_) return;
    if (!stdin_.empty()) {
      const Result<size_t> sent = guest_.TryWriteStdin(stdin_);
      if (!sent) return;
      stdin_.erase(0, *sent);
      ungranted_ += static_cast<uint32_t>(*sent);
    }
    if (ungranted_ >= kGrantStep && !stdin_ended_) {
      (void)stdin_window_.Grant(ungranted_);
      client_.Queue(guest::EncodeWindow({FrameType::kStdin, ungranted_}));
      ungranted_ = 0;
    }
    if (stdin_.empty() && stdin_ended_) {
      stdin_closed_ = true;
      (void)guest_.CloseStdin();
    }
  }

  StreamSocket& client_;
  GuestSession& guest_;
  const int stop_fd_;
  guest::Window stdin_window_;
  std::string stdin_;
  uint32_t ungranted_ = 0;
  bool stdin_ended_ = false;
  bool stdin_closed_ = false;
};

}  // namespace

Result<> Relay(StreamSocket& client, GuestSession& guest, int stop_fd) {
  return Relayer(client, guest, stop_fd).Run();
}

}  // namespace dormouse
