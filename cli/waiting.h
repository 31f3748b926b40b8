// Waits for any number of objects at once, and shows how they come along.
//
// Blocks; a thread and a connection for each object until it is done, has failed, or time is up.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "cli/display.h"
#include "cli/follow.h"
#include "cli/wish.h"
#include "src/common/base/result.h"
#include "src/common/kube/http_transport.h"

namespace dormouse::cli {

struct Awaited {
  Followed object;
  std::function<Result<Progress>(const nlohmann::json&)> judge;
};

/// How it stood in the end, in the order of `objects`: kWaiting where time was up. An object that
/// cannot be followed (deleted, not permitted) has failed.
[[nodiscard]] std::vector<Progress> WaitFor(kube::HttpTransport& transport,
                                            const std::vector<Awaited>& objects,
                                            std::chrono::nanoseconds limit, Display& display);

}  // namespace dormouse::cli
