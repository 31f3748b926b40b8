// The orderly end of a machine: its workload first, then all of it. On the EventLoop's thread.
#pragma once

#include <chrono>

#include "guest-agent/server/context.h"

namespace dormouse::guest {

/// After the last SIGKILL the kernel needs a moment.
inline constexpr std::chrono::milliseconds kKillMargin{5'000};

/// Returns at once. The workload gets SIGTERM, SIGKILL after `grace`, and when it has ended (or
/// would not) the machine is turned off, or started anew. It outlives whoever asked: the wish
/// stands.
void PowerOffMachine(Context& context, std::chrono::milliseconds grace, bool reboot);

}  // namespace dormouse::guest
