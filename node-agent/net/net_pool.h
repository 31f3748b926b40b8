// Furnished namespaces that wait for sandboxes, so that a start need not. Refilled by a thread of
// its own, one at a time and never while a sandbox's network is worked on: a burst of creations is
// served from the pool and then makes its own.
//
// Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

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

  /// For as long as it lives, the pool stays out of the way.
  class Work {
   public:
    explicit Work(NetPool* pool);
    ~Work();
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;

   private:
    NetPool* pool_;
  };

 private:
  void Refill(const std::stop_token& stop);

  const size_t size_;
  const SandboxRules rules_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<FurnishedNet> ready_;
  int working_ = 0;
  uint64_t works_ = 0;  ///< that there have been
  std::jthread thread_;
};

}  // namespace dormouse::net
