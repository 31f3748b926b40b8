// A command running in a guest, or a workload's log: streams out, input in, an exit at the end.
//
// Flow control is the caller's pace: the bytes of an event are granted to the guest anew when the
// next event is asked for, so at most a window per stream (guest::kInitialWindow) is ever on its
// way, and a caller who stops asking stops the guest. Thread-safe so far: Next by one thread at a
// time, all else by any thread at any time. Destroying it hangs up: the command gets SIGHUP.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>

#include "node-agent/guest/guest_stream.h"
#include "src/common/guest/frame.h"

namespace dormouse {

struct GuestEvent {
  enum class Kind {
    kStdout,      ///< `data`; `lost` when a log's older bytes were overwritten before it
    kStderr,      ///< `data`
    kStdinReady,  ///< TryWriteStdin takes more
    kExit,        ///< the last one: `exit`
  };
  Kind kind;
  std::string data;
  bool lost = false;
  guest::ExitStatus exit;
};

class GuestSession {
 public:
  /// For GuestClient: `stream` has just been answered.
  explicit GuestSession(GuestStream stream) : stream_(std::move(stream)) {}

  /// Waits for the next event; nothing when the deadline passed. After kExit, and after an error,
  /// kCancelled. kUnavailable: the guest is gone; kCorrupt: it violated the protocol.
  [[nodiscard]] Result<std::optional<GuestEvent>> Next(Deadline deadline);

  /// Sends as much as the guest takes now and says how much: 0 = wait for kStdinReady.
  [[nodiscard]] Result<size_t> TryWriteStdin(std::string_view data);
  /// Sends all. Another thread must be in Next meanwhile: that is where the guest's grants arrive.
  [[nodiscard]] Result<void> WriteStdin(std::string_view data, Deadline deadline);
  /// No more input: the command sees end of file (with a terminal: what ^D does).
  [[nodiscard]] Result<void> CloseStdin();
  [[nodiscard]] Result<void> Resize(guest::TerminalSize size);
  /// To the command's process group; 1 to 64.
  [[nodiscard]] Result<void> Signal(uint8_t number);
  /// From any thread: Next and WriteStdin end with an error now.
  void Abort();
  /// To poll: readable when Next has something. Next(now) may still give nothing.
  [[nodiscard]] int fd() const { return stream_.fd(); }

 private:
  [[nodiscard]] Result<std::optional<GuestEvent>> Interpret(const guest::Frame& frame);
  [[nodiscard]] Result<void> SendNow(std::string_view frames);
  [[nodiscard]] Result<GuestEvent> TakeOutput(const guest::Frame& frame, guest::Window& window);
  [[nodiscard]] Result<void> GrantTaken();

  GuestStream stream_;
  guest::Window out_window_;  ///< of Next's thread, as all up to ended_
  guest::Window err_window_;
  guest::WindowGrant taken_{guest::FrameType::kStdout, 0};
  bool out_closed_ = false;
  bool err_closed_ = false;
  bool ended_ = false;

  std::mutex mutex_;  ///< guards the below, and sending
  std::condition_variable granted_;
  guest::Window in_window_;
  bool in_closed_ = false;
  bool broken_ = false;
};

}  // namespace dormouse
