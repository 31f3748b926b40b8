#include "guest-agent/server/exec_session.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace dormouse::guest {
namespace {
constexpr size_t kReadBytes = 16 * 1024;
constexpr size_t kTerminalBuffer = 64 * 1024;
constexpr uint32_t kGrantStep = kInitialWindow / 4;
constexpr char kEndOfTransmission = 0x04;  // what a terminal's user types to end the input
}  // namespace

Result<std::unique_ptr<ExecSession>> ExecSession::Start(Context& context, Connection& connection,
                                                        const ExecRequest& request) {
  DORMOUSE_ASSIGN(LaunchPlan plan,
                  MakePlan(request.process, context.defaults, context.machine.Users()));
  plan.tty = request.tty;
  plan.stdin_open = request.stdin_open;
  plan.size = request.size;
  plan.cgroup_procs_fd = context.exec_cgroup.procs_fd();
  DORMOUSE_ASSIGN(Child child, Launch(plan));
  UniqueFd pidfd = std::move(child.pidfd);
  std::unique_ptr<ExecSession> session(
      new ExecSession(context, connection, std::move(child), request.tty));
  if (!request.stdin_open) session->in_.Reset();
  DORMOUSE_TRY(session->Begin(std::move(pidfd)));
  return session;
}

ExecSession::ExecSession(Context& context, Connection& connection, Child child, bool tty)
    : context_(context),
      connection_(connection),
      tty_(tty),
      pid_(child.pid),
      in_(std::move(child.in)),
      out_{std::move(child.out), FrameType::kStdout, {}, {}},
      err_{std::move(child.err), FrameType::kStderr, {}, {}} {}

ExecSession::~ExecSession() {
  for (const UniqueFd* fd : {&in_, &out_.fd, &err_.fd}) {
    if (*fd) context_.loop.Forget(fd->get());
  }
  if (!exit_) context_.processes.Abandon(pid_);
}

Result<void> ExecSession::Begin(UniqueFd pidfd) {
  DORMOUSE_TRY(context_.processes.Add(pid_, std::move(pidfd),
                                      [this](ExitStatus status) { OnExit(status); }));
  if (in_) DORMOUSE_TRY(context_.loop.Watch(in_.get(), 0, [this](uint32_t) { WriteStdin(); }));
  for (Output* output : {&out_, &err_}) {
    if (!output->fd) continue;
    DORMOUSE_TRY(context_.loop.Watch(output->fd.get(), EPOLLIN,
                                     [this, output](uint32_t) { Pump(*output); }));
  }
  return {};
}

Result<void> ExecSession::OnFrame(const Frame& frame) {
  switch (frame.type) {
    case FrameType::kStdin:
      return TakeStdin(frame);
    case FrameType::kResize: {
      DORMOUSE_ASSIGN(const TerminalSize size, DecodeResize(frame.payload));
      winsize wanted{};
      wanted.ws_row = size.rows;
      wanted.ws_col = size.columns;
      if (tty_ && out_.fd) (void)::ioctl(out_.fd.get(), TIOCSWINSZ, &wanted);
      return {};
    }
    case FrameType::kSignal: {
      DORMOUSE_ASSIGN(const uint8_t number, DecodeSignal(frame.payload));
      context_.processes.Signal(pid_, number);
      return {};
    }
    case FrameType::kWindow: {
      DORMOUSE_ASSIGN(const WindowGrant grant, DecodeWindow(frame.payload));
      if (grant.stream == FrameType::kStdin) break;
      Output& output = grant.stream == FrameType::kStdout ? out_ : err_;
      DORMOUSE_TRY(output.window.Grant(grant.bytes));
      Pump(output);
      return {};
    }
    default:
      break;
  }
  return Fail(ErrorCode::kInvalid, "a frame that has no place in an exec stream");
}

void ExecSession::OnWritable() {
  Pump(out_);
  Pump(err_);
}

void ExecSession::Pump(Output& output) {
  char buffer[kReadBytes];
  // A few reads at a time, so that a command that floods does not starve the other connections.
  for (int round = 0; output.fd && round < 8; ++round) {
    if (output.remaining == 0U) {
      CloseOutput(output);
      return;
    }
    const size_t room = std::min(
        {size_t{output.window.available()}, sizeof(buffer), output.remaining.value_or(SIZE_MAX)});
    if (room == 0 || !connection_.HasRoom()) {
      context_.loop.Change(output.fd.get(), 0);
      return;
    }
    const ssize_t got = ::read(output.fd.get(), buffer, room);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) {
      if (exit_) {
        CloseOutput(output);
      } else {
        context_.loop.Change(output.fd.get(), EPOLLIN);
      }
      return;
    }
    if (got <= 0) {  // end of file; EIO from a terminal that nobody has open any more
      CloseOutput(output);
      return;
    }
    (void)output.window.Take(static_cast<size_t>(got));
    if (output.remaining) *output.remaining -= static_cast<size_t>(got);
    connection_.Send(EncodeFrame(output.type, {buffer, static_cast<size_t>(got)}));
  }
  if (output.fd) context_.loop.Change(output.fd.get(), EPOLLIN);
}

void ExecSession::CloseOutput(Output& output) {
  context_.loop.Forget(output.fd.get());
  output.fd.Reset();
  connection_.Send(EncodeFrame(output.type, {}, kFlagEnd));
  FinishWhenDone();
}

Result<void> ExecSession::TakeStdin(const Frame& frame) {
  if (in_ended_) return Fail(ErrorCode::kInvalid, "stdin after its end");
  DORMOUSE_TRY(in_window_.Take(frame.payload.size()));
  if ((frame.flags & kFlagEnd) != 0) in_ended_ = true;
  if (!in_) {  // closed by the command, or never wanted: swallowed, so that the host is not stuck
    GrantStdin(frame.payload.size());
    return {};
  }
  in_pending_.append(frame.payload);
  WriteStdin();
  return {};
}

void ExecSession::WriteStdin() {
  while (in_ && !in_pending_.empty()) {
    const ssize_t put = ::write(in_.get(), in_pending_.data(), in_pending_.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && errno == EAGAIN) {
      context_.loop.Change(in_.get(), EPOLLOUT);
      return;
    }
    if (put < 0) {
      GrantStdin(in_pending_.size());
      in_pending_.clear();
      CloseStdin();
      return;
    }
    in_pending_.erase(0, static_cast<size_t>(put));
    GrantStdin(static_cast<size_t>(put));
  }
  if (!in_) return;
  context_.loop.Change(in_.get(), 0);
  if (!in_ended_) return;
  if (tty_) (void)!::write(in_.get(), &kEndOfTransmission, 1);
  CloseStdin();
}

void ExecSession::CloseStdin() {
  context_.loop.Forget(in_.get());
  in_.Reset();
}

void ExecSession::GrantStdin(size_t bytes) {
  in_ungranted_ += static_cast<uint32_t>(bytes);
  if (in_ended_ || (in_ungranted_ < kGrantStep && !in_pending_.empty())) return;
  if (in_ungranted_ == 0) return;
  (void)in_window_.Grant(in_ungranted_);
  connection_.Send(EncodeWindow({FrameType::kStdin, in_ungranted_}));
  in_ungranted_ = 0;
}

void ExecSession::OnExit(ExitStatus status) {
  exit_ = status;
  // What the command wrote is in its pipes by now. Whoever else still has them open is not waited
  // for, and what they add not read. A terminal's buffer is asked by reading it: in-flight bytes
  // are not counted.
  for (Output* output : {&out_, &err_}) {
    int unread = 0;
    if (!output->fd) continue;
    const bool counted = !tty_ && ::ioctl(output->fd.get(), FIONREAD, &unread) == 0;
    output->remaining = counted ? static_cast<size_t>(unread) : kTerminalBuffer;
    Pump(*output);
  }
  FinishWhenDone();
}

void ExecSession::FinishWhenDone() {
  if (!exit_ || out_.fd || err_.fd || finished_) return;
  finished_ = true;
  connection_.Send(EncodeExit(*exit_));
  connection_.Finish();
}

}  // namespace dormouse::guest
