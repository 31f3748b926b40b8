#include "src/common/base/clock.h"

namespace dormouse {
namespace {

class SystemClock : public Clock {
 public:
  MonotonicTime Now() const override { return std::chrono::steady_clock::now(); }
  WallTime WallNow() const override { return std::chrono::system_clock::now(); }
};

// 2026-01-01T00:00:00Z: a fixed, readable start for tests and golden files.
constexpr std::chrono::seconds kFakeEpoch{1767225600};

}  // namespace

const Clock& Clock::System() {
  static const SystemClock clock;
  return clock;
}

MonotonicTime FakeClock::Now() const {
  std::lock_guard lock(mutex_);
  return MonotonicTime(std::chrono::hours(1) + elapsed_);
}

WallTime FakeClock::WallNow() const {
  std::lock_guard lock(mutex_);
  return WallTime(
      std::chrono::duration_cast<WallTime::duration>(kFakeEpoch + elapsed_ + wall_jump_));
}

void FakeClock::Advance(std::chrono::nanoseconds by) {
  std::lock_guard lock(mutex_);
  elapsed_ += by;
}

void FakeClock::JumpWall(std::chrono::nanoseconds by) {
  std::lock_guard lock(mutex_);
  wall_jump_ += by;
}

}  // namespace dormouse
