// The guest's one static address, as ip= says, by the classic ioctls (netdevice(7), rtentry).
#pragma once

#include <string>
#include <vector>

#include "guest-agent/init/kernel_args.h"
#include "src/common/base/result.h"

namespace dormouse::guest {

[[nodiscard]] Result<void> BringUpLoopback();
/// Address, mask, up, default route; no IPv6. Twice is fine.
[[nodiscard]] Result<void> ConfigureNetwork(const NetworkArgs& args);

}  // namespace dormouse::guest
