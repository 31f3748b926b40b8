// Counts what others still do for us after we stopped waiting for it, so that an end can wait.
//
// Thread-safe. A ticket may outlive the InFlight that gave it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>

namespace dormouse::kube {

class InFlight {
 public:
  /// Counts as one until its last copy is gone.
  using Ticket = std::shared_ptr<const void>;

  [[nodiscard]] Ticket Enter() {
    {
      std::lock_guard lock(state_->mutex);
      ++state_->count;
    }
    // A deleter runs for a null pointer too.
    return {static_cast<const void*>(nullptr), [state = state_](const void*) {
              std::lock_guard lock(state->mutex);
              if (--state->count == 0) state->none.notify_all();
            }};
  }

  /// False when some were still there after `limit`.
  bool WaitUntilNone(std::chrono::milliseconds limit) {
    std::unique_lock lock(state_->mutex);
    return state_->none.wait_for(lock, limit, [this] { return state_->count == 0; });
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable none;
    int count = 0;
  };
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace dormouse::kube
