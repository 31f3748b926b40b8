// The endpoints every Dormouse process serves: /healthz, /readyz, /metrics.
//
// A check answers within a millisecond from what is known (it runs on the server's thread) and is
// thread-safe. /healthz and /readyz answer 200 "ok", or 503 with one line per failed check.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "src/common/base/metrics.h"
#include "src/common/base/result.h"
#include "src/common/http/server.h"

namespace dormouse::http {

struct Check {
  std::string name;
  std::function<Result<>()> run;
};

/// Registers the three endpoints on `server` before it starts. `registry` must outlive it.
void ServeProbes(Server& server, std::vector<Check> health, std::vector<Check> ready,
                 const metrics::Registry& registry);

}  // namespace dormouse::http
