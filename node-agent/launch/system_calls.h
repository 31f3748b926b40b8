// What no VMM ever asks of the kernel, refused before the kernel looks at it: a first filter, below
// the VMM's own, that holds also for versions and threads whose own is missing. Chiefly user
// namespaces, which would open to an escaped guest the kernel code that only root can reach.
//
// Single-threaded. Dies on failure (step.h).
#pragma once

namespace dormouse::launch {

/// For this process and all that it becomes; no_new_privs is set. Refused calls fail with EPERM.
void RefuseSystemCalls();

}  // namespace dormouse::launch
