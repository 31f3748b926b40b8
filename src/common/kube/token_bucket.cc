#include "src/common/kube/token_bucket.h"

#include <algorithm>

namespace dormouse::kube {

TokenBucket::TokenBucket(double rate, double burst, const Clock& clock)
    : rate_(rate), burst_(burst), clock_(clock), tokens_(burst), last_(clock.Now()) {}

std::chrono::nanoseconds TokenBucket::Take() {
  std::lock_guard lock(mutex_);
  const MonotonicTime now = clock_.Now();
  const double elapsed = std::chrono::duration<double>(now - last_).count();
  last_ = now;
  tokens_ = std::min(burst_, tokens_ + elapsed * rate_) - 1;
  if (tokens_ >= 0) return std::chrono::nanoseconds(0);
  return std::chrono::ceil<std::chrono::nanoseconds>(
      std::chrono::duration<double>(-tokens_ / rate_));
}

}  // namespace dormouse::kube
