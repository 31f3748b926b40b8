// Waiting as a dependency, beside the Clock: loops that pause between tries take a Waiter, so that
// a test lets hours pass without sleeping.
//
// Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <random>
#include <stop_token>
#include <vector>

#include "src/common/base/clock.h"

namespace dormouse::kube {

class Waiter {
 public:
  virtual ~Waiter() = default;
  /// Waits for `time` or until `stop`; false when stopped.
  virtual bool Wait(std::chrono::nanoseconds time, const std::stop_token& stop) = 0;
  /// Really waits; lives for ever.
  static Waiter& System();
};

/// Moves a FakeClock instead of waiting, and remembers how far.
class FakeWaiter : public Waiter {
 public:
  explicit FakeWaiter(FakeClock& clock) : clock_(clock) {}
  bool Wait(std::chrono::nanoseconds time, const std::stop_token& stop) override;
  [[nodiscard]] std::vector<std::chrono::nanoseconds> Waits() const;

 private:
  FakeClock& clock_;
  mutable std::mutex mutex_;
  std::vector<std::chrono::nanoseconds> waits_;
};

/// Exponential back-off as client-go's reflector has it: first·2^n up to `max`, each with up to
/// `jitter` times itself on top; it starts over when it was not asked for `reset_after`.
/// Not thread-safe.
class Backoff {
 public:
  struct Options {
    std::chrono::nanoseconds first = std::chrono::milliseconds(800);
    std::chrono::nanoseconds max = std::chrono::seconds(30);
    std::chrono::nanoseconds reset_after = std::chrono::minutes(2);
    double jitter = 1.0;
    uint64_t seed = std::random_device{}();
  };
  Backoff(const Clock& clock, Options options);
  [[nodiscard]] std::chrono::nanoseconds Next();
  void Reset() { tries_ = 0; }

 private:
  const Clock& clock_;
  Options options_;
  std::mt19937_64 random_;
  int tries_ = 0;
  MonotonicTime last_{};
};

}  // namespace dormouse::kube
