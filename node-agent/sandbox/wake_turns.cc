#include "node-agent/sandbox/wake_turns.h"

#include <algorithm>

namespace dormouse {

WakeTurns::WakeTurns(std::size_t at_once, std::chrono::nanoseconds longest, const Clock& clock)
    : at_once_(at_once),
      longest_(longest),
      clock_(clock),
      in_line_(metrics::Registry::Default().MakeGauge(
          "dormouse_wakes_in_line", "Sandboxes that wait for others to wake first.")) {}

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
  const bool its_turn = static_cast<std::size_t>(place - line_.begin()) < Free();
  if (its_turn) line_.erase(place);
  in_line_.Set(static_cast<double>(line_.size()));
  if (!its_turn) return false;
  taken_.emplace(uid, clock_.Now());
  return true;
}

std::vector<api::SandboxUid> WakeTurns::Leave(const api::SandboxUid& uid) {
  const std::lock_guard lock(mutex_);
  const auto waited = std::find(line_.begin(), line_.end(), uid);
  const bool was_in_line = waited != line_.end();
  if (was_in_line) line_.erase(waited);
  in_line_.Set(static_cast<double>(line_.size()));
  if (taken_.erase(uid) == 0 && !was_in_line) return {};
  const auto next = static_cast<std::ptrdiff_t>(std::min(Free(), line_.size()));
  return {line_.begin(), line_.begin() + next};
}

}  // namespace dormouse
