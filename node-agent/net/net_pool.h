// Furnished namespaces that wait for sandboxes, so that a start need not. Refilled by a thread of
// its own, one at a time and never while a sandbox's network is worked on: a burst of creations is
// served from the pool and then makes its own.
//
// Thread-safe.
#pragma once

#include <cstddef>
#include <mutex>
#include <optional>
#include <vector>

#include "node-agent/host/refill.h"
#include "node-agent/net/furnished.h"

namespace dormouse::net {

class NetPool {
 public:
  /// Each of `rules`, at most `size`; 0 keeps none.
  NetPool(size_t size, SandboxRules rules);

  /// Refills from now on. Called once, in the node's network namespace.
  void Start();
  /// Makes one if there is room. Start's thread calls it; tests do.
  Result<> FillOne();
  /// None when there is none, or where their policy is another.
  std::optional<FurnishedNet> Take(const EgressPolicy& policy);
  [[nodiscard]] size_t ready() const;
  [[nodiscard]] const SandboxRules& rules() const { return rules_; }

  /// For as long as it lives, the pool stays out of the way.
  class Work : public host::Refill::Work {
   public:
    explicit Work(NetPool* pool) : host::Refill::Work(&pool->refill_) {}
  };

 private:
  const size_t size_;
  const SandboxRules rules_;
  mutable std::mutex mutex_;
  std::vector<FurnishedNet> ready_;
  host::Refill refill_;  ///< last: its thread is stopped first
};

}  // namespace dormouse::net
