#include "node-agent/sandbox/wake_turns.h"

#include <algorithm>

namespace dormouse {

WakeTurns::WakeTurns(std::size_t at_once, std::chrono::nanoseconds longest, const Clock& clock)
    : at_once_(at_once), longest_(longest), clock_(clock) {}

std::size_t WakeTurns::Free() const {
  const MonotonicTime now = clock_.Now();
  const auto busy =
      static_cast<std::size_t>(std::count_if(taken_.begin(), taken_.end(), [&](const auto& turn) {
        return now - turn.second < longest_;
      }));
  return at_once_ - std::min(busy, at_once_);
}

bool WakeTurns::Take(const api::SandboxUid& uid) {
  const std::lock_guard lock(mutex_);
  if (at_once_ == 0 || taken_.contains(uid)) return true;
  auto place = std::find(line_.begin(), line_.end(), uid);
  if (place == line_.end()) place = line_.insert(line_.end(), uid);
  if (static_cast<std::size_t>(place - line_.begin()) >= Free()) return false;
  line_.erase(place);
  taken_.emplace(uid, clock_.Now());
  return true;
}

std::vector<api::SandboxUid> WakeTurns::Leave(const api::SandboxUid& uid) {
  const std::lock_guard lock(mutex_);
  const auto waited = std::find(line_.begin(), line_.end(), uid);
  if (waited != line_.end()) line_.erase(waited);
  if (taken_.erase(uid) == 0 && waited == line_.end()) return {};
  const auto next = static_cast<std::ptrdiff_t>(std::min(Free(), line_.size()));
  return {line_.begin(), line_.begin() + next};
}

}  // namespace dormouse
