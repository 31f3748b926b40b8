// Kernel settings that let a guest in which nothing runs stand still: each wake of an idle guest is
// an exit of its vCPU, and a node has hundreds of them. Thread-safe.
#pragma once

#include <string>

#include "src/common/base/result.h"

namespace dormouse::guest {

/// Compaction only on demand (the kernel looks twice a second otherwise), statistics folded once a
/// minute rather than each second. `sysctls` is /proc/sys. A kernel that lacks one is left alone;
/// an image's own sysctls come later, and win.
[[nodiscard]] Result<void> KeepStill(const std::string& sysctls);

}  // namespace dormouse::guest
