// The terminal of a person who runs ctl: raw while a command with a terminal runs in a guest, and
// as it was afterwards. And the signals that reach ctl meanwhile, as something to poll.
//
// Each restores what it changed when it goes. Not thread-safe: SignalWatch sets the calling
// thread's mask.
#pragma once

#include <signal.h>
#include <termios.h>

#include <optional>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"
#include "src/common/guest/frame.h"

namespace dormouse {

class RawTerminal {
 public:
  /// Nothing happens when `fd` is no terminal.
  static Result<RawTerminal> Enter(int fd);
  RawTerminal(RawTerminal&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), before_(other.before_) {}
  RawTerminal& operator=(RawTerminal&&) = delete;
  ~RawTerminal();

 private:
  RawTerminal(int fd, const termios& before) : fd_(fd), before_(before) {}
  int fd_;  ///< not owned; -1 = nothing to restore
  termios before_;
};

/// The size of the terminal `fd`; nothing when it is none.
[[nodiscard]] std::optional<guest::TerminalSize> SizeOfTerminal(int fd);

/// SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGWINCH come out of a descriptor instead of ending ctl.
class SignalWatch {
 public:
  static Result<SignalWatch> Start();
  SignalWatch(SignalWatch&& other) noexcept
      : fd_(std::move(other.fd_)),
        before_(other.before_),
        active_(std::exchange(other.active_, false)) {}
  SignalWatch& operator=(SignalWatch&&) = delete;
  ~SignalWatch();

  [[nodiscard]] int fd() const { return fd_.get(); }
  /// The next one that came; 0 when there is none.
  [[nodiscard]] int Take();

 private:
  SignalWatch(UniqueFd fd, const sigset_t& before) : fd_(std::move(fd)), before_(before) {}
  UniqueFd fd_;
  sigset_t before_;
  bool active_ = true;
};

}  // namespace dormouse
