// One client of the agent's local socket: reads its request, does it, answers, done.
//
// Blocking, on a thread of its own; a client that is slow, silent or sends garbage costs that
// thread a few seconds and nothing else.
#pragma once

#include <atomic>
#include <chrono>

#include "node-agent/record/paths.h"
#include "node-agent/sandbox/view.h"
#include "node-agent/serve/stream_socket.h"

namespace dormouse {

struct CtlContext {
  AgentView& view;
  Paths paths;
  int stop_fd = -1;  ///< readable when the agent stops
  std::chrono::milliseconds request_time{
      5'000};  ///< for the whole request to arrive, and for an answer to be taken
  std::chrono::milliseconds guest_time{10'000};  ///< for a guest to start a command
};

/// `asked` becomes true once the client's request has arrived; where somebody has set it before,
/// nothing is done. The client's socket is shut down at the end.
void ServeCtlClient(const CtlContext& context, StreamSocket& client, std::atomic<bool>& asked);

/// "no sandbox default/web on this node; it has: default/a, default/b". Names are cut after the
/// twentieth.
[[nodiscard]] std::string NoSuchSandbox(const kube::ObjectKey& key,
                                        const std::vector<SandboxSummary>& present);

}  // namespace dormouse
