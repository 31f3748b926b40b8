// One command that the host runs in the guest, and the streams between them (frame.h).
//
// Bounds: at most a window of stdin is held for a command that does not read, and no output is read
// from it that the host has not granted. When the connection goes, so does the command (SIGHUP,
// then SIGKILL); what it put into a session of its own stays.
#pragma once

#include <memory>

#include "guest-agent/server/connection.h"
#include "guest-agent/server/context.h"

namespace dormouse::guest {

class ExecSession : public FrameHandler {
 public:
  /// Starts the command; the caller then answers kReply and switches the connection to it.
  [[nodiscard]] static Result<std::unique_ptr<ExecSession>> Start(Context& context,
                                                                  Connection& connection,
                                                                  const ExecRequest& request);
  ~ExecSession() override;

  [[nodiscard]] Result<void> OnFrame(const Frame& frame) override;
  void OnWritable() override;

 private:
  struct Output {
    UniqueFd fd;
    FrameType type;
    Window window;
    std::optional<size_t>
        remaining;  ///< after the command's end: what it had written and we have not read
  };

  ExecSession(Context& context, Connection& connection, Child child, bool tty);
  [[nodiscard]] Result<void> Begin(UniqueFd pidfd);
  void Pump(Output& output);
  void CloseOutput(Output& output);
  [[nodiscard]] Result<void> TakeStdin(const Frame& frame);
  void WriteStdin();
  void CloseStdin();
  void GrantStdin(size_t bytes);
  void OnExit(ExitStatus status);
  void FinishWhenDone();

  Context& context_;
  Connection& connection_;
  const bool tty_;
  pid_t pid_;
  std::optional<ExitStatus> exit_;
  bool finished_ = false;
  UniqueFd in_;
  std::string in_pending_;
  bool in_ended_ = false;  ///< the host sent its last
  Window in_window_;
  uint32_t in_ungranted_ = 0;
  Output out_;
  Output err_;
};

}  // namespace dormouse::guest
