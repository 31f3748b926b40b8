// Whether nodes live, by their Leases, which their agents renew each 10 s.
//
// Judged by when *we* saw a Lease change, never by another machine's clock, but for one thing: a
// Lease that looks stale when we first see it is not trusted before it has been renewed before our
// eyes. So a controller that has just started neither places on a node that died long ago, nor
// calls one lost.
//
// Thread-safe; no I/O.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>

#include "src/common/base/clock.h"
#include "src/common/kube/lease.h"

namespace dormouse::controller {

enum class NodeState {
  kAlive,    ///< renewed lately
  kUnknown,  ///< not renewed before our eyes, and not missed for long enough either
  kLost,     ///< not renewed for its duration
};

/// "dormouse-node-<name>".
[[nodiscard]] std::string NodeLeaseName(const std::string& node);
/// The node of such a Lease; empty for any other.
[[nodiscard]] std::string NodeOfLease(const std::string& lease);

class NodeHealth {
 public:
  /// `default_duration` counts where a Lease does not say how long it is good for.
  NodeHealth(const Clock& clock, std::chrono::nanoseconds default_duration);

  /// The Lease of `node` as it is now. Repeating an old one renews nothing.
  void Observe(const std::string& node, const kube::LeaseRecord& lease);

  struct Verdict {
    NodeState state = NodeState::kUnknown;
    /// When it changes if nothing comes; nothing for a lost node.
    std::chrono::nanoseconds ends_in{0};
  };
  /// A node without a Lease counts as one whose Lease was last seen to change when this was first
  /// asked.
  [[nodiscard]] Verdict Of(const std::string& node);
  /// Drops what is known of a node that nothing refers to any more.
  void Forget(const std::string& node);

 private:
  struct Seen {
    kube::ResourceVersion version;
    MonotonicTime changed_at{};
    std::chrono::nanoseconds duration{0};
    bool trusted = false;  ///< fresh when first seen, or renewed since
  };

  const Clock& clock_;
  const std::chrono::nanoseconds default_duration_;
  std::mutex mutex_;
  std::map<std::string, Seen> seen_;
};

}  // namespace dormouse::controller
