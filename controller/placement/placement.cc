#include "controller/placement/placement.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "src/common/api/quantity.h"
#include "src/common/api/reasons.h"

namespace dormouse::controller {
namespace {

namespace reasons = api::reasons;

constexpr size_t kCausesTold = 6;
constexpr char kExists[] = "Exists";
constexpr char kPreferNoSchedule[] = "PreferNoSchedule";

bool Tolerated(const std::vector<api::Toleration>& tolerations, const api::Taint& taint) {
  return std::any_of(
      tolerations.begin(), tolerations.end(),
      [&taint](const api::Toleration& toleration) { return Tolerates(toleration, taint); });
}

std::string TaintText(const api::Taint& taint) {
  return taint.key + (taint.value.empty() ? "" : "=" + taint.value) + ":" + taint.effect;
}

/// "2 vCPUs and 4Gi memory": what of `wanted` does not fit beside `reserved`. Empty when all does.
std::string Missing(const Amount& capacity, const Amount& reserved, const Amount& wanted) {
  std::string missing;
  const auto add = [&missing](const std::string& what) {
    missing += (missing.empty() ? "" : " and ") + what;
  };
  if (reserved.vcpus + wanted.vcpus > capacity.vcpus) {
    add(std::to_string(wanted.vcpus) + (wanted.vcpus == 1 ? " vCPU" : " vCPUs"));
  }
  if (reserved.memory_bytes + wanted.memory_bytes > capacity.memory_bytes) {
    add(api::FormatBytes(wanted.memory_bytes) + " memory");
  }
  if (capacity.disk_bytes > 0 && wanted.disk_bytes > 0 &&
      reserved.disk_bytes + wanted.disk_bytes > capacity.disk_bytes) {
    add(api::FormatBytes(wanted.disk_bytes) + " disk");
  }
  if (capacity.sandboxes > 0 && reserved.sandboxes + wanted.sandboxes > capacity.sandboxes) {
    add("one more sandbox");
  }
  return missing;
}

/// Empty when there is room.
std::string NoRoomText(const NodeView& node, const Amount& wanted) {
  if (const std::string never = Missing(node.capacity, {}, wanted); !never.empty())
    return "too small for " + never;
  const std::string missing = Missing(node.capacity, node.reserved, wanted);
  return missing.empty() ? missing : "without room for " + missing;
}

double FreeShare(int64_t capacity, int64_t used) {
  return capacity <= 0 ? 0.0 : static_cast<double>(capacity - used) / static_cast<double>(capacity);
}

/// Greater is better.
double FreeAfter(const NodeView& node, const Amount& wanted) {
  return FreeShare(node.capacity.vcpus, node.reserved.vcpus + wanted.vcpus) +
         FreeShare(node.capacity.memory_bytes, node.reserved.memory_bytes + wanted.memory_bytes);
}

int64_t UnwelcomeTaints(const NodeView& node, const Demand& demand) {
  return std::count_if(node.taints.begin(), node.taints.end(), [&demand](const api::Taint& taint) {
    return taint.effect == kPreferNoSchedule && !Tolerated(demand.tolerations, taint);
  });
}

/// One word for all nodes: room where some node would do but for its room, then what keeps the most
/// promising of the others out.
std::string ReasonFor(const std::set<PlacementCause>& causes) {
  const auto has = [&causes](PlacementCause cause) { return causes.contains(cause); };
  if (has(PlacementCause::kNoRoom) || has(PlacementCause::kDiskPressure) ||
      has(PlacementCause::kRefused)) {
    return std::string(reasons::kNoCapacity);
  }
  if (has(PlacementCause::kImage)) return std::string(reasons::kImageNotFound);
  return std::string(reasons::kNoNode);
}

Placement NoPlace(const std::vector<Obstacle>& obstacles) {
  Placement placement;
  if (obstacles.empty()) {
    placement.reason = reasons::kNoNode;
    placement.message = "there is no SandboxNode yet: no agent has registered";
    return placement;
  }
  std::set<PlacementCause> causes;
  std::map<std::string, int> counts;
  for (const Obstacle& obstacle : obstacles) {
    causes.insert(obstacle.cause);
    ++counts[obstacle.text];
  }
  std::vector<std::pair<std::string, int>> sorted(counts.begin(), counts.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& left, const auto& right) { return left.second > right.second; });
  placement.reason = ReasonFor(causes);
  placement.message = "0/" + std::to_string(obstacles.size()) + " nodes";
  int others = 0;
  for (size_t at = 0; at < sorted.size(); ++at) {
    const auto& [text, count] = sorted[at];
    if (at >= kCausesTold) {
      others += count;
    } else {
      placement.message += (at == 0 ? ": " : ", ") + std::to_string(count) + " " + text;
    }
  }
  if (others > 0) placement.message += ", " + std::to_string(others) + " for other causes";
  return placement;
}

}  // namespace

Amount& Amount::operator+=(const Amount& other) {
  vcpus += other.vcpus;
  memory_bytes += other.memory_bytes;
  sandboxes += other.sandboxes;
  disk_bytes += other.disk_bytes;
  return *this;
}

Amount& Amount::operator-=(const Amount& other) {
  vcpus -= other.vcpus;
  memory_bytes -= other.memory_bytes;
  sandboxes -= other.sandboxes;
  disk_bytes -= other.disk_bytes;
  return *this;
}

std::string Demand::Shape() const {
  std::string shape;
  const auto add = [&shape](const std::string& part) { shape += part + '\n'; };
  add(std::to_string(amount.vcpus) + " " + std::to_string(amount.memory_bytes) + " " +
      std::to_string(amount.disk_bytes));
  add(image);
  add(template_name);
  for (const std::string& name : holders) add("h " + name);
  for (const auto& [key, value] : node_selector) add("s " + key + "=" + value);
  for (const api::Toleration& one : tolerations)
    add("t " + one.key + " " + one.op + " " + one.value + " " + one.effect);
  for (const std::string& name : refused) add("r " + name);
  return shape;
}

bool Tolerates(const api::Toleration& toleration, const api::Taint& taint) {
  if (!toleration.effect.empty() && toleration.effect != taint.effect) return false;
  if (toleration.key.empty()) return toleration.op == kExists;
  if (toleration.key != taint.key) return false;
  return toleration.op == kExists || toleration.value == taint.value;
}

Amount AmountOn(const NodeView& node, Amount amount, const std::string& image) {
  const auto found = node.images.find(image);
  if (amount.disk_bytes == 0 && found != node.images.end()) amount.disk_bytes = found->second;
  return amount;
}

std::optional<Obstacle> ObstacleOn(const NodeView& node, const Demand& demand) {
  using enum PlacementCause;
  if (!node.ready) return Obstacle{kNotReady, "not Ready"};
  if (node.unschedulable) return Obstacle{kUnschedulable, "unschedulable"};
  for (const auto& [key, value] : demand.node_selector) {
    const auto label = node.labels.find(key);
    if (label == node.labels.end() || label->second != value) {
      return Obstacle{kSelector, "without label " + key + "=" + value};
    }
  }
  for (const api::Taint& taint : node.taints) {
    if (taint.effect != kPreferNoSchedule && !Tolerated(demand.tolerations, taint)) {
      return Obstacle{kTaint, "with taint " + TaintText(taint) + " that is not tolerated"};
    }
  }
  if (!node.hypervisor_ready) return Obstacle{kHypervisor, "without a usable hypervisor"};
  if (!demand.template_name.empty() && !demand.holders.contains(node.name)) {
    return Obstacle{kTemplate, "without template " + demand.template_name};
  }
  if (!demand.image.empty() && !node.images.contains(demand.image)) {
    return Obstacle{kImage, "without image " + demand.image};
  }
  if (demand.refused.contains(node.name)) return Obstacle{kRefused, "that refused it lately"};
  if (node.disk_pressure) return Obstacle{kDiskPressure, "short of disk"};
  if (std::string text = NoRoomText(node, AmountOn(node, demand.amount, demand.image));
      !text.empty())
    return Obstacle{kNoRoom, std::move(text)};
  return std::nullopt;
}

Placement Place(const Demand& demand, const std::vector<NodeView>& nodes) {
  const NodeView* best = nullptr;
  std::vector<Obstacle> obstacles;
  const auto rank = [&demand](const NodeView& node) {
    return std::make_tuple(UnwelcomeTaints(node, demand), -FreeAfter(node, demand.amount),
                           node.name);
  };
  for (const NodeView& node : nodes) {
    if (auto obstacle = ObstacleOn(node, demand)) {
      obstacles.push_back(std::move(*obstacle));
    } else if (best == nullptr || rank(node) < rank(*best)) {
      best = &node;
    }
  }
  if (best == nullptr) return NoPlace(obstacles);
  return Placement{best->name, "", ""};
}

NodeView ViewOf(const api::SandboxNode& node, bool lease_fresh) {
  NodeView view;
  view.name = node.meta.name;
  view.labels = node.meta.labels;
  view.unschedulable = node.unschedulable || node.meta.deletion_time.has_value();
  view.taints = node.taints;
  view.ready = lease_fresh && api::IsTrue(node.status.conditions, api::condition::kReady);
  const auto* hypervisor =
      api::FindCondition(node.status.conditions, api::condition::kHypervisorReady);
  view.hypervisor_ready =
      hypervisor == nullptr || hypervisor->status != api::ConditionStatus::kFalse;
  view.disk_pressure = api::IsTrue(node.status.conditions, api::condition::kDiskPressure);
  for (const api::NodeImage& image : node.status.images) view.images[image.name] = image.size_bytes;
  const api::NodeAmount& capacity = node.status.capacity;
  view.capacity =
      Amount{capacity.vcpus, capacity.memory_bytes, capacity.running, capacity.disk_bytes};
  return view;
}

}  // namespace dormouse::controller
