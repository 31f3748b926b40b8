// The one thread of the guest's server: descriptors, timers and deferred calls, over epoll.
//
// Not thread-safe but for Stop() and Wake(). A callback may watch, change or forget any descriptor,
// its own included; events of a forgotten one that were already fetched are dropped.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::guest {

class EventLoop {
 public:
  using Callback = std::function<void(uint32_t events)>;
  using TimerId = uint64_t;  ///< 0 is none

  [[nodiscard]] static Result<std::unique_ptr<EventLoop>> Create();

  /// Level-triggered. `events` 0: known, but nothing is reported (not even a hang-up).
  [[nodiscard]] Result<void> Watch(int fd, uint32_t events, Callback callback);
  void Change(int fd, uint32_t events);
  /// Before the descriptor is closed. Unknown ones are ignored.
  void Forget(int fd);

  TimerId After(std::chrono::milliseconds delay, std::function<void()> callback);
  void Cancel(TimerId id);
  /// Runs after the callbacks of this round: the place to destroy the caller.
  void Defer(std::function<void()> callback) { deferred_.push_back(std::move(callback)); }

  /// Until Stop. May be called once.
  void Run();
  /// From any thread or callback.
  void Stop();
  /// From any thread: runs `on_wake` in the loop soon.
  void Wake();
  void SetOnWake(std::function<void()> on_wake) { on_wake_ = std::move(on_wake); }

 private:
  using Instant = std::chrono::steady_clock::time_point;
  struct Watched {
    uint64_t serial;
    uint32_t events;
    std::shared_ptr<Callback> callback;
  };

  EventLoop(UniqueFd epoll, UniqueFd wake);
  void Dispatch(int fd, uint64_t serial, uint32_t events);
  void RunTimers();
  void RunDeferred();
  [[nodiscard]] int NextTimeout() const;

  UniqueFd epoll_;
  UniqueFd wake_;
  std::map<int, Watched> watched_;
  uint64_t next_serial_ = 1;
  std::map<std::pair<Instant, TimerId>, std::function<void()>> timers_;
  TimerId next_timer_ = 1;
  std::vector<std::function<void()>> deferred_;
  std::function<void()> on_wake_;
  std::atomic<bool> stop_{false};
};

}  // namespace dormouse::guest
