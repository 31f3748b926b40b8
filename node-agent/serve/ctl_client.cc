#include "node-agent/serve/ctl_client.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <optional>

#include "node-agent/serve/console_file.h"
#include "node-agent/serve/terminal.h"

namespace dormouse {
namespace {

using guest::FrameType;

constexpr size_t kMaxAnswerBytes = 64U << 20;
constexpr size_t kStdinChunk = 16 * 1024;
/// What a pipe or terminal that poll() calls writable takes without blocking (PIPE_BUF).
constexpr size_t kSafeWrite = 4096;
/// So many requests to end are passed on; the next one ends ctl.
constexpr int kPatience = 3;

class Session {
 public:
  Session(StreamSocket socket, const CtlRequest& request, const CtlIo& io, bool printable)
      : socket_(std::move(socket)),
        io_(io),
        is_command_(request.exec.has_value()),
        tty_(request.exec && request.exec->tty),
        stdin_open_(request.exec && request.exec->stdin_open),
        printable_(printable) {}

  Result<guest::ExitStatus> Run(std::string_view request) {
    DORMOUSE_ASSIGN(SignalWatch signals, SignalWatch::Start());
    std::optional<RawTerminal> raw;
    socket_.Queue(request);
    for (;;) {
      if (started_ && tty_ && stdin_open_ && !raw) {
        DORMOUSE_ASSIGN(RawTerminal entered, RawTerminal::Enter(io_.in));
        raw.emplace(std::move(entered));
      }
      // A socket that takes no more may still hold the last words: reading tells.
      if (!socket_.Flush()) stdin_open_ = false;
      if (exit_ && output_.empty()) return *exit_;
      DORMOUSE_TRY(Turn(signals));
    }
  }

 private:
  struct Output {
    int fd;
    std::string bytes;
  };

  Result<> Turn(SignalWatch& signals) {
    const bool reads_stdin =
        started_ && stdin_open_ && window_.available() > 0 && socket_.queued() == 0;
    const bool has_output = !output_.empty();
    pollfd polled[4] = {{has_output || exit_ ? -1 : socket_.fd(),
                         static_cast<short>(socket_.queued() > 0 ? POLLIN | POLLOUT : POLLIN), 0},
                        {reads_stdin ? io_.in : -1, POLLIN, 0},
                        {has_output ? output_.front().fd : -1, POLLOUT, 0},
                        {signals.fd(), POLLIN, 0}};
    if (::poll(polled, 4, -1) < 0) {
      if (errno == EINTR) return {};
      return FailErrno("poll");
    }
    if (polled[3].revents != 0) DORMOUSE_TRY(TakeSignal(signals.Take()));
    if (polled[2].revents != 0) DORMOUSE_TRY(WriteOutput());
    if (polled[1].revents != 0) ReadStdin();
    if ((polled[0].revents & (POLLIN | POLLHUP | POLLERR)) != 0) DORMOUSE_TRY(ReadSocket());
    return {};
  }

  Result<> TakeSignal(int number) {
    if (number == 0) return {};
    if (number == SIGWINCH) {
      const auto size = SizeOfTerminal(io_.in);
      if (tty_ && size && started_) socket_.Queue(guest::EncodeResize(*size));
      return {};
    }
    // Before the command runs, and where there is none (a log), there is nobody to pass it on to.
    const bool to_a_command = started_ && is_command_;
    if (!to_a_command || ++ended_by_signal_ > kPatience) {
      exit_ = guest::ExitStatus{0, static_cast<uint32_t>(number)};
      output_.clear();
      return {};
    }
    socket_.Queue(guest::EncodeSignal(static_cast<uint8_t>(number)));
    return {};
  }

  void ReadStdin() {
    char buffer[kStdinChunk];
    const ssize_t got =
        ::read(io_.in, buffer, std::min<size_t>(sizeof(buffer), window_.available()));
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (got <= 0) {
      socket_.Queue(guest::EncodeFrame(FrameType::kStdin, {}, guest::kFlagEnd));
      stdin_open_ = false;
      return;
    }
    (void)window_.Take(static_cast<size_t>(got));
    socket_.Queue(guest::EncodeFrame(FrameType::kStdin, {buffer, static_cast<size_t>(got)}));
  }

  Result<> WriteOutput() {
    Output& first = output_.front();
    const ssize_t put =
        ::write(first.fd, first.bytes.data(), std::min(first.bytes.size(), kSafeWrite));
    if (put < 0 && (errno == EINTR || errno == EAGAIN)) return {};
    if (put < 0) return FailErrno(first.fd == io_.out ? "write to stdout" : "write to stderr");
    first.bytes.erase(0, static_cast<size_t>(put));
    if (first.bytes.empty()) output_.pop_front();
    return {};
  }

  Result<> ReadSocket() {
    DORMOUSE_ASSIGN(const bool there, socket_.Fill());
    for (;;) {
      DORMOUSE_ASSIGN(const auto frame, socket_.Next());
      if (!frame) break;
      DORMOUSE_TRY(TakeFrame(*frame));
    }
    if (!there && !exit_) return Fail(ErrorCode::kUnavailable, "the agent hung up before the end");
    return {};
  }

  Result<> TakeFrame(const guest::Frame& frame) {
    switch (frame.type) {
      case FrameType::kError:
        return Fail(guest::ParseError(frame.payload));
      case FrameType::kReply:
        started_ = true;
        return {};
      case FrameType::kStdout:
      case FrameType::kStderr: {
        const int fd = frame.type == FrameType::kStdout ? io_.out : io_.err;
        if (frame.flags == guest::kFlagLost)
          output_.push_back({io_.err, "(older output is gone)\n"});
        std::string bytes = printable_ ? Printable(frame.payload) : std::string(frame.payload);
        if (!bytes.empty()) output_.push_back({fd, std::move(bytes)});
        return {};
      }
      case FrameType::kWindow: {
        DORMOUSE_ASSIGN(const guest::WindowGrant grant, guest::DecodeWindow(frame.payload));
        return window_.Grant(grant.bytes);
      }
      case FrameType::kExit: {
        DORMOUSE_ASSIGN(exit_, guest::DecodeExit(frame.payload));
        return {};
      }
      default:
        return Fail(ErrorCode::kCorrupt, "the agent's answer cannot be read");
    }
  }

  StreamSocket socket_;
  const CtlIo io_;
  const bool is_command_;
  const bool tty_;
  bool stdin_open_;
  const bool printable_;
  bool started_ = false;
  int ended_by_signal_ = 0;
  guest::Window window_;
  std::deque<Output> output_;
  std::optional<guest::ExitStatus> exit_;
};

}  // namespace

Result<std::string> AskAgent(const std::string& path, const CtlRequest& request) {
  DORMOUSE_ASSIGN(const std::string line, EncodeCtlRequest(request));
  DORMOUSE_ASSIGN(StreamSocket socket, StreamSocket::Connect(path));
  socket.Queue(line);
  (void)socket.Flush();  // an agent that refuses has said why: read below
  std::string answer;
  for (;;) {
    pollfd polled{socket.fd(), static_cast<short>(socket.queued() > 0 ? POLLIN | POLLOUT : POLLIN),
                  0};
    if (::poll(&polled, 1, -1) < 0 && errno != EINTR) return FailErrno("poll");
    (void)socket.Flush();
    DORMOUSE_ASSIGN(const bool there, socket.Fill());
    for (;;) {
      DORMOUSE_ASSIGN(const auto frame, socket.Next());
      if (!frame) break;
      if (frame->type == FrameType::kError) return Fail(guest::ParseError(frame->payload));
      if (frame->type == FrameType::kExit) return answer;
      if (frame->type == FrameType::kStdout) answer.append(frame->payload);
      if (answer.size() > kMaxAnswerBytes)
        return Fail(ErrorCode::kCorrupt, "the agent's answer has no end");
    }
    if (!there) return Fail(ErrorCode::kUnavailable, "the agent hung up before the end");
  }
}

Result<guest::ExitStatus> RunOverAgent(const std::string& path, const CtlRequest& request,
                                       const CtlIo& io, bool printable) {
  DORMOUSE_ASSIGN(const std::string line, EncodeCtlRequest(request));
  DORMOUSE_ASSIGN(StreamSocket socket, StreamSocket::Connect(path));
  return Session(std::move(socket), request, io, printable).Run(line);
}

}  // namespace dormouse
