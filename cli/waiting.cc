#include "cli/waiting.h"

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/text.h"

namespace dormouse::cli {
namespace {

constexpr auto kFrame = std::chrono::milliseconds(100);

/// What the followers have seen, and how many still look.
class Results {
 public:
  Results(std::size_t count, Display& display) : display_(display), seen_(count), open_(count) {}

  void Set(std::size_t object, Progress progress) {
    display_.Show(object, progress);
    const std::lock_guard lock(mutex_);
    seen_[object] = std::move(progress);
  }
  void Fail(std::size_t object, const Error& error) {
    Progress failed = Of(object);
    failed.standing = Standing::kFailed;
    failed.why = OneLine(error.message());
    Set(object, std::move(failed));
  }
  void Close() {
    const std::lock_guard lock(mutex_);
    if (--open_ == 0) changed_.notify_all();
  }
  /// True when nobody looks any more.
  bool WaitUntil(MonotonicTime until) {
    std::unique_lock lock(mutex_);
    return changed_.wait_until(lock, until, [this] { return open_ == 0; });
  }
  [[nodiscard]] Progress Of(std::size_t object) const {
    const std::lock_guard lock(mutex_);
    return seen_[object];
  }
  [[nodiscard]] std::vector<Progress> All() const {
    const std::lock_guard lock(mutex_);
    return seen_;
  }

 private:
  Display& display_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Progress> seen_;
  std::size_t open_;
};

void FollowOne(kube::HttpTransport& transport, const Awaited& awaited, std::size_t index,
               Results& results, const std::stop_token& stop) {
  const auto look = [&](const nlohmann::json& object) {
    Result<Progress> progress = awaited.judge(object);
    if (!progress) {
      results.Fail(index, progress.error());
      return false;
    }
    const bool waits = progress->standing == Standing::kWaiting;
    results.Set(index, std::move(*progress));
    return waits;
  };
  const Result<> ended = Follow(transport, awaited.object, look, stop);
  if (!ended && ended.error().code() != ErrorCode::kCancelled) results.Fail(index, ended.error());
  results.Close();
}

}  // namespace

std::vector<Progress> WaitFor(kube::HttpTransport& transport, const std::vector<Awaited>& objects,
                              std::chrono::nanoseconds limit, Display& display) {
  const MonotonicTime deadline = Clock::System().Now() + limit;
  Results results(objects.size(), display);
  {
    std::vector<std::jthread> followers;
    for (std::size_t i = 0; i < objects.size(); ++i) {
      followers.emplace_back([&, i](const std::stop_token& stop) {
        FollowOne(transport, objects[i], i, results, stop);
      });
    }
    bool ended = objects.empty();
    for (MonotonicTime now = Clock::System().Now(); !ended && now < deadline;
         now = Clock::System().Now()) {
      ended = results.WaitUntil(std::min(deadline, now + kFrame));
      display.Tick();
    }
    for (std::jthread& follower : followers) follower.request_stop();
  }
  return results.All();
}

}  // namespace dormouse::cli
