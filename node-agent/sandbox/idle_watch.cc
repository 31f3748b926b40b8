#include "node-agent/sandbox/idle_watch.h"

#include <algorithm>

namespace dormouse {

using std::chrono::nanoseconds;

void IdleWatch::Watch(const api::SandboxUid& uid, nanoseconds timeout) {
  const std::lock_guard lock(state_->mutex);
  const auto [found, is_new] = state_->watched.try_emplace(uid);
  Watched& watched = found->second;
  if (!is_new && watched.timeout == timeout) return;
  watched.timeout = timeout;
  if (is_new) watched.last_active = watched.read_at = state_->clock.Now();
  watched.shown = ShownOf(watched, state_->clock);
}

void IdleWatch::Forget(const api::SandboxUid& uid) {
  const std::lock_guard lock(state_->mutex);
  state_->watched.erase(uid);
}

IdleWatch::Session IdleWatch::Open(const api::SandboxUid& uid) const {
  const std::lock_guard lock(state_->mutex);
  ++state_->sessions[uid];
  return {nullptr, [state = state_, uid](const void*) {
            const std::lock_guard closing(state->mutex);
            if (--state->sessions[uid] == 0) state->sessions.erase(uid);
            // Until now somebody was in it.
            const auto watched = state->watched.find(uid);
            if (watched != state->watched.end()) watched->second.last_active = state->clock.Now();
          }};
}

std::vector<api::SandboxUid> IdleWatch::Due() const {
  const std::lock_guard lock(state_->mutex);
  std::vector<api::SandboxUid> due;
  for (const auto& [uid, watched] : state_->watched) {
    if (!watched.read || state_->clock.Now() - watched.read_at >= kPeriod) due.push_back(uid);
  }
  return due;
}

bool IdleWatch::IsBusy(const Watched& watched, const Activity& read, MonotonicTime now) {
  // A counter that went back is another machine's.
  if (read.packets != watched.read->packets || read.cpu_time < watched.read->cpu_time) return true;
  const nanoseconds worked = read.cpu_time - watched.read->cpu_time;
  // In a moment any machine takes more than its share: a reading too soon is held against a period.
  const nanoseconds within = std::max<nanoseconds>(now - watched.read_at, kPeriod);
  return static_cast<double>(worked.count()) > kBusyShare * static_cast<double>(within.count());
}

IdleWatch::Shown IdleWatch::ShownOf(const Watched& watched, const Clock& clock) {
  const MonotonicTime now = clock.Now();
  // Whole seconds, as the API has them: never earlier than it is.
  const auto wall = [&](MonotonicTime then) {
    return std::chrono::ceil<std::chrono::seconds>(
        clock.WallNow() + std::chrono::duration_cast<WallTime::duration>(then - now));
  };
  const nanoseconds left = watched.last_active + watched.timeout - now;
  const bool idle = left <= nanoseconds(0);
  const bool soon = !idle && left <= std::min<nanoseconds>(watched.timeout / 4, kWarning);
  return {wall(watched.last_active), wall(watched.last_active + watched.timeout), soon, idle};
}

bool IdleWatch::Note(const api::SandboxUid& uid, const std::optional<Activity>& read) {
  const std::lock_guard lock(state_->mutex);
  const auto found = state_->watched.find(uid);
  if (found == state_->watched.end()) return false;
  Watched& watched = found->second;
  const MonotonicTime now = state_->clock.Now();
  // The first reading of it only says what to count from.
  const bool active =
      !read || state_->sessions.contains(uid) || (watched.read && IsBusy(watched, *read, now));
  if (active) watched.last_active = now;
  watched.read = read;
  watched.read_at = now;
  const Shown next = ShownOf(watched, state_->clock);
  const bool later = next.deadline - watched.shown.deadline >= watched.timeout / 4;
  if (next.idle == watched.shown.idle && next.soon == watched.shown.soon && !later) return false;
  watched.shown = next;
  return true;
}

std::optional<IdleWatch::Shown> IdleWatch::Of(const api::SandboxUid& uid) const {
  const std::lock_guard lock(state_->mutex);
  const auto found = state_->watched.find(uid);
  if (found == state_->watched.end()) return std::nullopt;
  return found->second.shown;
}

}  // namespace dormouse
