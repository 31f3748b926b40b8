// Carries one guest session (an exec, or a workload's log) to a ctl client and back.
//
// Runs on the connection's thread until one side ends. What comes of the guest has been checked by
// GuestSession; what comes of the client is checked here. At most a window of input and one event
// of output are held: a slow side slows the other down.
#pragma once

#include "node-agent/guest/guest_session.h"
#include "node-agent/serve/stream_socket.h"
#include "src/common/base/result.h"

namespace dormouse {

/// Success when the command has ended and the client was told, or when the client hung up.
/// kCancelled when `stop_fd` became readable. A guest that went away or broke the protocol is told
/// to the client as kError.
Result<> Relay(StreamSocket& client, GuestSession& guest, int stop_fd);

}  // namespace dormouse
