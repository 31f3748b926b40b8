#include "controller/nodes/node_health.h"

#include <string_view>

namespace dormouse::controller {
namespace {

constexpr std::string_view kLeasePrefix = "dormouse-node-";

}  // namespace

std::string NodeLeaseName(const std::string& node) {
  return std::string(kLeasePrefix) + node;
}

std::string NodeOfLease(const std::string& lease) {
  return lease.starts_with(kLeasePrefix) ? lease.substr(kLeasePrefix.size()) : std::string();
}

NodeHealth::NodeHealth(const Clock& clock, std::chrono::nanoseconds default_duration)
    : clock_(clock), default_duration_(default_duration) {}

void NodeHealth::Observe(const std::string& node, const kube::LeaseRecord& lease) {
  const std::chrono::nanoseconds duration =
      lease.duration.count() > 0 ? std::chrono::nanoseconds(lease.duration) : default_duration_;
  std::lock_guard lock(mutex_);
  const auto [entry, is_new] = seen_.try_emplace(node);
  Seen& seen = entry->second;
  if (!is_new && seen.version == lease.ref.resource_version) return;
  const bool first_lease = seen.version.empty();
  seen.version = lease.ref.resource_version;
  seen.duration = duration;
  seen.changed_at = clock_.Now();
  seen.trusted = !first_lease || (lease.renewed && clock_.WallNow() - *lease.renewed < duration);
}

NodeHealth::Verdict NodeHealth::Of(const std::string& node) {
  std::lock_guard lock(mutex_);
  const auto [entry, is_new] = seen_.try_emplace(node);
  Seen& seen = entry->second;
  if (is_new) {
    seen.changed_at = clock_.Now();
    seen.duration = default_duration_;
  }
  const std::chrono::nanoseconds left = seen.changed_at + seen.duration - clock_.Now();
  if (left <= std::chrono::nanoseconds::zero())
    return {NodeState::kLost, std::chrono::nanoseconds::zero()};
  return {seen.trusted ? NodeState::kAlive : NodeState::kUnknown, left};
}

void NodeHealth::Forget(const std::string& node) {
  std::lock_guard lock(mutex_);
  seen_.erase(node);
}

}  // namespace dormouse::controller
