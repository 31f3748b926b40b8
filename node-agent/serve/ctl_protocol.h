// What `dormouse-agent ctl` and the agent say to each other over <run>/agent.sock.
//
// One request a connection: a line of JSON, then frames of the guest protocol (frame.h) both ways.
//   client: {"verb":"exec","sandbox":"default/web","exec":{"argv":["uname"]}}\n
//   agent:  kError, and that was it; or kReply, kStdout and kStderr as they come, kExit as the last
//   one client, during an exec: kStdin within a window of kInitialWindow that the agent refills by
//   kWindow, kResize, kSignal. Hanging up ends what it asked for.
// A listing is a stream too: its text is "stdout". Output needs no windows here: the agent sends
// the next piece when the socket has taken the one before. Parsing is strict and bounded. Pure;
// thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/common/base/result.h"
#include "src/common/guest/messages.h"
#include "src/common/kube/object_meta.h"

namespace dormouse {

/// Longer requests are refused: a guest's exec request, at most a frame, fits.
inline constexpr size_t kMaxRequestLine = 96 * 1024;
inline constexpr uint64_t kAllLines = UINT64_MAX;

enum class CtlVerb { kList, kShow, kExec, kLogs, kConsole, kSweep };

struct CtlRequest {
  CtlVerb verb = CtlVerb::kList;
  kube::ObjectKey sandbox = {};                 ///< of show, exec, logs, console
  uint64_t lines = kAllLines;                   ///< of logs and console: how many of the past
  bool follow = false;                          ///< of logs and console
  bool remove = false;                          ///< of sweep
  std::optional<guest::ExecRequest> exec = {};  ///< of exec
};

/// "NS/NAME", or "NAME" in the namespace "default". kInvalid unless both are names that Kubernetes
/// allows.
Result<kube::ObjectKey> ParseSandboxName(std::string_view text);

/// With its newline. kInvalid: a command or environment too large for a request.
Result<std::string> EncodeCtlRequest(const CtlRequest& request);
/// `line` without its newline.
Result<CtlRequest> ParseCtlRequest(std::string_view line);

}  // namespace dormouse
