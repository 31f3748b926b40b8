// What programs of a server find set when they start: limits, kernel settings of the image, device
// nodes. Called once, by PID 1.
#pragma once

#include <string>

#include "src/common/base/result.h"

namespace dormouse::guest {

/// Of this process, and so of all that it starts: open files as container runtimes have it. What
/// else the kernel gives PID 1 is what a Debian server's programs have.
[[nodiscard]] Result<void> RaiseLimits();

/// Applies <root>/etc/sysctl.conf and the files of sysctl.d(5), the image's word after ours. A key
/// that this kernel does not have is passed over; the first other failure is returned, after the
/// rest.
[[nodiscard]] Result<void> ApplySysctls(const std::string& root);

/// <root>/dev/net/tun and /dev/fuse, which udev makes elsewhere, and the links of /dev/fd and its
/// like.
[[nodiscard]] Result<void> MakeDevices(const std::string& root);

}  // namespace dormouse::guest
