#include "src/common/kube/waiter.h"

#include <algorithm>
#include <condition_variable>

namespace dormouse::kube {
namespace {

class SystemWaiter : public Waiter {
 public:
  bool Wait(std::chrono::nanoseconds time, const std::stop_token& stop) override {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::unique_lock lock(mutex);
    (void)changed.wait_for(lock, stop, time, [] { return false; });
    return !stop.stop_requested();
  }
};

}  // namespace

Waiter& Waiter::System() {
  static SystemWaiter waiter;
  return waiter;
}

bool FakeWaiter::Wait(std::chrono::nanoseconds time, const std::stop_token& stop) {
  if (stop.stop_requested()) return false;
  clock_.Advance(time);
  std::lock_guard lock(mutex_);
  waits_.push_back(time);
  return true;
}

std::vector<std::chrono::nanoseconds> FakeWaiter::Waits() const {
  std::lock_guard lock(mutex_);
  return waits_;
}

Backoff::Backoff(const Clock& clock, Options options)
    : clock_(clock), options_(options), random_(options.seed) {}

std::chrono::nanoseconds Backoff::Next() {
  const MonotonicTime now = clock_.Now();
  if (tries_ > 0 && now - last_ > options_.reset_after) tries_ = 0;
  last_ = now;
  auto delay = options_.first;
  for (int i = 0; i < tries_ && delay < options_.max; ++i) delay *= 2;
  delay = std::min(delay, options_.max);
  ++tries_;
  const double spread = std::uniform_real_distribution<double>(0.0, options_.jitter)(random_);
  return delay + std::chrono::nanoseconds(
                     static_cast<int64_t>(static_cast<double>(delay.count()) * spread));
}

}  // namespace dormouse::kube
