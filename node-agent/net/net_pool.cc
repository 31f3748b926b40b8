#include "node-agent/net/net_pool.h"

#include "src/common/base/log.h"

namespace dormouse::net {
namespace {

using namespace std::chrono_literals;

// A start goes on after its network was made, and others may follow.
constexpr auto kQuiet = 100ms;
constexpr auto kRetry = 10s;

}  // namespace

NetPool::NetPool(size_t size, SandboxRules rules) : size_(size), rules_(std::move(rules)) {}

void NetPool::Start() {
  if (size_ == 0) return;
  thread_ = std::jthread([this](const std::stop_token& stop) { Refill(stop); });
}

Result<> NetPool::FillOne() {
  if (ready() >= size_) return {};
  DORMOUSE_ASSIGN(FurnishedNet made, Furnish(rules_));
  const std::lock_guard lock(mutex_);
  if (ready_.size() < size_) ready_.push_back(std::move(made));
  return {};
}

std::optional<FurnishedNet> NetPool::Take(const EgressPolicy& policy) {
  const std::lock_guard lock(mutex_);
  if (ready_.empty() || policy != rules_.policy) return std::nullopt;
  FurnishedNet taken = std::move(ready_.back());
  ready_.pop_back();
  return taken;
}

size_t NetPool::ready() const {
  const std::lock_guard lock(mutex_);
  return ready_.size();
}

NetPool::Work::Work(NetPool* pool) : pool_(pool) {
  const std::lock_guard lock(pool_->mutex_);
  ++pool_->working_;
  ++pool_->works_;
}

NetPool::Work::~Work() {
  {
    const std::lock_guard lock(pool_->mutex_);
    --pool_->working_;
  }
  pool_->changed_.notify_all();
}

void NetPool::Refill(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    changed_.wait(lock, stop, [&] { return working_ == 0 && ready_.size() < size_; });
    const uint64_t works = works_;
    if (changed_.wait_for(lock, stop, kQuiet, [&] { return works_ != works; })) continue;
    if (stop.stop_requested()) return;
    lock.unlock();
    auto filled = FillOne();
    if (!filled) {
      log::Warning("no network is made ahead", {{"error", filled.error().message()}});
    }
    lock.lock();
    if (!filled) changed_.wait_for(lock, stop, kRetry, [] { return false; });
  }
}

}  // namespace dormouse::net
