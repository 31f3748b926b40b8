// What a VMM can do without, refused before the kernel looks at it: a first filter below the VMM's
// own. It holds for each thread and each version; v53.0's filters are per thread, and its main
// thread has none. Chiefly:
// - user namespaces, which open to an escaped guest the kernel code that only root can reach;
// - io_uring, another large part of the kernel;
// - links, devices, directories and renames, which an escaped guest could plant for the agent.
//
// Single-threaded. Dies on failure (step.h).
#pragma once

namespace dormouse::launch {

/// For this process and all that it becomes; no_new_privs is set. Refused calls fail with EPERM.
void RefuseSystemCalls();

}  // namespace dormouse::launch
