// A limit on our own request rate: a thousand agents must not be a storm.
//
// Thread-safe. `rate` tokens a second, up to `burst` saved; each Take spends one, now or in debt.
#pragma once

#include <chrono>
#include <mutex>

#include "src/common/base/clock.h"

namespace dormouse::kube {

class TokenBucket {
 public:
  TokenBucket(double rate, double burst, const Clock& clock = Clock::System());
  /// Spends a token and says how long to wait before acting on it; 0 = not at all.
  [[nodiscard]] std::chrono::nanoseconds Take();

 private:
  const double rate_;
  const double burst_;
  const Clock& clock_;
  std::mutex mutex_;
  double tokens_;
  MonotonicTime last_;
};

}  // namespace dormouse::kube
