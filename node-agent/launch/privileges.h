// How a VMM loses everything it does not need, for good.
//
// Single-threaded. Dies on failure (step.h).
#pragma once

#include "node-agent/launch/spec.h"

namespace dormouse::launch {

/// Resource limits and the out-of-memory score, while /proc is still there.
void SetLimits(const Spec& spec);
/// Capabilities (the bounding set too), groups, uid, and no way back (no_new_privs). Signals as a
/// new program expects them.
void DropPrivileges(const Spec& spec);

}  // namespace dormouse::launch
