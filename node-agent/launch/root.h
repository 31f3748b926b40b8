// The file system that a VMM sees: a read-only tmpfs of its own with what its spec names, and
// nothing of the host's beside. No /proc, no /sys.
//
// Single-threaded. Dies on failure (step.h).
#pragma once

#include "node-agent/launch/spec.h"

namespace dormouse::launch {

/// Leaves the host's mounts for a private copy of them, builds the root, makes it "/" and lets go
/// of the copy. Joins kHostMountsFd before, where the spec says so.
void EnterPrivateRoot(const Spec& spec);

}  // namespace dormouse::launch
