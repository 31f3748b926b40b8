#include "node-agent/serve/terminal.h"

#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace dormouse {

Result<RawTerminal> RawTerminal::Enter(int fd) {
  termios before{};
  if (::isatty(fd) == 0) return RawTerminal(-1, before);
  if (::tcgetattr(fd, &before) != 0) return FailErrno("read the terminal's settings");
  termios raw = before;
  ::cfmakeraw(&raw);
  if (::tcsetattr(fd, TCSADRAIN, &raw) != 0) return FailErrno("set the terminal");
  return RawTerminal(fd, before);
}

RawTerminal::~RawTerminal() {
  if (fd_ >= 0) (void)::tcsetattr(fd_, TCSADRAIN, &before_);
}

std::optional<guest::TerminalSize> SizeOfTerminal(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0)
    return std::nullopt;
  return guest::TerminalSize{size.ws_row, size.ws_col};
}

Result<SignalWatch> SignalWatch::Start() {
  sigset_t watched;
  sigset_t before;
  sigemptyset(&watched);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH}) sigaddset(&watched, number);
  UniqueFd fd(::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return FailErrno("signalfd");
  if (const int error = ::pthread_sigmask(SIG_BLOCK, &watched, &before); error != 0) {
    return FailErrno("block signals", error);
  }
  return SignalWatch(std::move(fd), before);
}

SignalWatch::~SignalWatch() {
  if (active_) (void)::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

int SignalWatch::Take() {
  signalfd_siginfo info{};
  return ::read(fd_.get(), &info, sizeof(info)) == sizeof(info) ? static_cast<int>(info.ssi_signo)
                                                                : 0;
}

}  // namespace dormouse
