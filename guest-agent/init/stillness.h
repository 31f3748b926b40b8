// Kernel settings that let a guest in which nothing runs stand still: each wake of an idle guest is
// an exit of its vCPU, and a node has hundreds of them. Thread-safe.
#pragma once

#include <string>

#include "src/common/base/result.h"

namespace dormouse::guest {

/// Compaction only on demand (the kernel looks twice a second otherwise), statistics folded once a
/// minute rather than each second. No detectors of soft lockups (a look every four seconds) and of
/// RCU's stalls: the clock goes on over a sleep, which they would report, stacks and all, before
/// the guest has answered. A kernel that hangs in its boot, before this, reports it.
/// `root` is empty but in tests. A kernel that lacks one is left alone; what an image sets comes
/// later, and wins. Tries all of them; the first that cannot be set is the error.
[[nodiscard]] Result<void> KeepStill(const std::string& root);

}  // namespace dormouse::guest
