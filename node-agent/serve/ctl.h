// `dormouse-agent ctl`: the node's own tool, for the person on call and for tests. Speaks to the
// agent over <run>/agent.sock, so it needs root on the node, and neither the API server nor the
// controller.
//
//   ctl [--socket PATH] list [-o wide|json]
//   ctl show NS/NAME [-o json]
//   ctl exec [-i] [-t] [-e NAME=VALUE]... [-u USER] [-w DIRECTORY] NS/NAME -- COMMAND [ARGUMENT]...
//   ctl logs [-f] [--console] [--tail N] NS/NAME
//   ctl sweep [--remove] [-o json]
//
// Exit codes: exec gives the command's (128 + n when signal n ended it, 126 or 127 when it could
// not be run); sweep 1 when something is left that belongs to no sandbox; 255 for errors of our
// own; else 0.
#pragma once

#include <string>
#include <vector>

#include "node-agent/serve/ctl_client.h"

namespace dormouse {

/// `argv[0]` is "ctl". Uses the process's streams, and ignores SIGPIPE.
int ctl_main(int argc, char** argv);

/// The same with streams of the caller's. `args` begins after "ctl".
int RunCtl(const std::vector<std::string>& args, const CtlIo& io);

}  // namespace dormouse
