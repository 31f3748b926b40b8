#include "node-agent/host/refill.h"

#include <algorithm>
#include <chrono>

#include "src/common/base/log.h"

namespace dormouse::host {
namespace {

using namespace std::chrono_literals;

// A start or a wake goes on for about so long after its part of the work, and others may follow.
constexpr auto kQuiet = 1s;
constexpr std::chrono::seconds kRetry = 10s;
constexpr std::chrono::seconds kLongestRetry = 300s;

}  // namespace

Refill::Refill(RefillSpec spec) : spec_(std::move(spec)) {}

void Refill::Start() {
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

Refill::Work::Work(Refill* refill) : refill_(refill) {
  const std::lock_guard lock(refill_->mutex_);
  ++refill_->working_;
  ++refill_->works_;
}

Refill::Work::~Work() {
  {
    const std::lock_guard lock(refill_->mutex_);
    --refill_->working_;
  }
  refill_->changed_.notify_all();
}

void Refill::Run(const std::stop_token& stop) {
  std::chrono::seconds retry = kRetry;
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (!changed_.wait(lock, stop, [&] { return working_ == 0 && spec_.wanted(); })) return;
    const uint64_t works = works_;
    if (changed_.wait_for(lock, stop, kQuiet, [&] { return works_ != works; })) continue;
    if (stop.stop_requested()) return;
    lock.unlock();
    auto made = spec_.make_one();
    if (!made)
      log::Warning("no " + spec_.what + " is made ahead", {{"error", made.error().message()}});
    lock.lock();
    if (made) {
      retry = kRetry;
    } else {
      changed_.wait_for(lock, stop, retry, [] { return false; });
      retry = std::min(2 * retry, kLongestRetry);
    }
  }
}

}  // namespace dormouse::host
