// The verbs: each writes what the user wishes to the API server, and then waits for it if asked to.
//
// suspend and resume set spec.operatingMode and nothing else, by a merge patch of the field manager
// "kubectl-dormouse", as `kubectl scale` sets replicas. snapshot makes a SnapshotTemplate, clone
// makes sandboxes.
#pragma once

#include <memory>

#include "cli/options.h"
#include "src/common/kube/http_transport.h"

namespace dormouse::cli {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;    ///< refused, or failed while it was waited for
inline constexpr int kExitTimedOut = 2;  ///< nothing failed, but not all was done in time

struct Io {
  int out, err;  ///< descriptors, not owned: what was done; progress and errors
};

/// The exit code. `options.ns` must be set. Of several sandboxes each is tried, whatever becomes of
/// the others.
[[nodiscard]] int Run(const Options& options, const std::shared_ptr<kube::HttpTransport>& transport,
                      const Io& io);

/// Writes "error: <message>" and returns kExitFailed.
int Report(const Io& io, const std::string& message);

}  // namespace dormouse::cli
