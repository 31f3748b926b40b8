// Time as a dependency: everything that waits or stamps takes a Clock, so that tests own the time.
//
// Thread-safe. `Now` is monotonic and does not go back; `WallNow` is what people and the API read.
#pragma once

#include <chrono>
#include <mutex>

namespace dormouse {

using MonotonicTime = std::chrono::steady_clock::time_point;
using WallTime = std::chrono::system_clock::time_point;

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual MonotonicTime Now() const = 0;
  [[nodiscard]] virtual WallTime WallNow() const = 0;
  /// The machine's clock; lives for ever.
  static const Clock& System();
};

/// A clock that stands still until it is moved.
class FakeClock : public Clock {
 public:
  [[nodiscard]] MonotonicTime Now() const override;
  [[nodiscard]] WallTime WallNow() const override;
  void Advance(std::chrono::nanoseconds by);
  /// Somebody sets the wall clock.
  void JumpWall(std::chrono::nanoseconds by);

 private:
  mutable std::mutex mutex_;
  std::chrono::nanoseconds elapsed_{0}, wall_jump_{0};
};

}  // namespace dormouse
