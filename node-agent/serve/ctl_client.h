// ctl's side of the agent's local socket: sends one request and carries its streams.
//
// Blocking, one thread; signals are taken while a command runs (terminal.h).
#pragma once

#include <string>

#include "node-agent/serve/ctl_protocol.h"
#include "node-agent/serve/stream_socket.h"
#include "src/common/base/result.h"
#include "src/common/guest/frame.h"

namespace dormouse {

/// The three streams of the person or program that runs ctl. Not owned, and never made
/// non-blocking: others share them.
struct CtlIo {
  int in = 0;
  int out = 1;
  int err = 2;
};

/// For list, show, sweep and console without follow: the whole answer, 64 MiB at most.
Result<std::string> AskAgent(const std::string& socket, const CtlRequest& request);

/// For exec and logs: runs until the far end says how it ended. Output is made `printable` where it
/// goes to a terminal and is none of the command's own.
Result<guest::ExitStatus> RunOverAgent(const std::string& socket, const CtlRequest& request,
                                       const CtlIo& io, bool printable);

}  // namespace dormouse
