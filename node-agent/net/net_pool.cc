#include "node-agent/net/net_pool.h"

namespace dormouse::net {

NetPool::NetPool(size_t size, SandboxRules rules)
    : size_(size),
      rules_(std::move(rules)),
      refill_({"network", [this] { return ready() < size_; }, [this] { return FillOne(); }}) {}

void NetPool::Start() {
  if (size_ != 0) refill_.Start();
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

}  // namespace dormouse::net
