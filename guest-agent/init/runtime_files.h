// What a distribution's programs expect in /run and /tmp, which systemd makes elsewhere: the usual
// directories, what tmpfiles.d(5) says of /run, and the RuntimeDirectory= of the units that are
// installed (systemd.exec(5)). Called once, by PID 1, before any program.
#pragma once

#include <string>

#include "src/common/base/result.h"

namespace dormouse::guest {

/// Of tmpfiles.d only directories (d, D, v, q, Q), files (f, F) and links (L, L+) below /run,
/// without specifiers (%): what is beyond it is the image's own. The first failure, after the rest.
[[nodiscard]] Result<void> MakeRuntimeFiles(const std::string& root);

}  // namespace dormouse::guest
