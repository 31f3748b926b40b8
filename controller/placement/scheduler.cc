#include "controller/placement/scheduler.h"

#include <algorithm>
#include <variant>

namespace dormouse::controller {
namespace {

std::vector<NodeView>::iterator FindNode(std::vector<NodeView>* nodes, const std::string& name) {
  return std::lower_bound(
      nodes->begin(), nodes->end(), name,
      [](const NodeView& node, const std::string& wanted) { return node.name < wanted; });
}

}  // namespace

Scheduler::Scheduler(SandboxLookup sandboxes, TemplateLookup templates, const Clock& clock,
                     Options options)
    : sandboxes_(std::move(sandboxes)),
      templates_(std::move(templates)),
      clock_(clock),
      options_(options) {}

void Scheduler::BumpLocked() {
  ++epoch_;
  hopeless_.clear();
}

bool Scheduler::SetNode(const api::SandboxNode& node, bool lease_fresh) {
  NodeView view = ViewOf(node, lease_fresh);
  std::lock_guard lock(mutex_);
  const auto found = FindNode(&nodes_, view.name);
  if (found == nodes_.end() || found->name != view.name) {
    nodes_.insert(found, std::move(view));
  } else {
    view.reserved = found->reserved;
    if (*found == view) return false;
    *found = std::move(view);
  }
  BumpLocked();
  return true;
}

bool Scheduler::RemoveNode(const std::string& name) {
  std::lock_guard lock(mutex_);
  const auto found = FindNode(&nodes_, name);
  if (found == nodes_.end() || found->name != name) return false;
  nodes_.erase(found);
  BumpLocked();
  return true;
}

bool Scheduler::Observe(const kube::ObjectKey& key) {
  std::lock_guard lock(mutex_);
  const SandboxPtr sandbox = sandboxes_(key);
  if (sandbox == nullptr) return false;
  std::optional<Holding> holding = HoldingOf(*sandbox, templates_);
  if (holding && holding->amount.disk_bytes == 0) {
    const auto node = FindNode(&nodes_, holding->node);
    if (node != nodes_.end() && node->name == holding->node)
      holding->amount = AmountOn(*node, holding->amount, sandbox->spec.image);
  }
  const bool freed = holding ? ledger_.Observe(sandbox->meta.uid, *holding)
                             : ledger_.ObserveUnplaced(sandbox->meta.uid);
  if (holding) waiting_.erase({sandbox->meta.creation_time, sandbox->meta.uid});
  if (freed) BumpLocked();
  return freed;
}

bool Scheduler::Forget(const std::string& uid) {
  std::lock_guard lock(mutex_);
  std::erase_if(waiting_, [&uid](const auto& entry) { return entry.first.second == uid; });
  refusals_.erase(uid);
  const bool freed = ledger_.Forget(uid);
  if (freed) BumpLocked();
  return freed;
}

void Scheduler::TouchTemplates() {
  std::lock_guard lock(mutex_);
  BumpLocked();
}

bool Scheduler::PromiseStandsLocked(const Demand& demand, const Holding& promise) {
  const auto node = FindNode(&nodes_, promise.node);
  if (node == nodes_.end() || node->name != promise.node ||
      promise.amount != AmountOn(*node, demand.amount, demand.image)) {
    return false;
  }
  node->reserved = ledger_.Reserved(node->name);
  node->reserved -= promise.amount;
  return !ObstacleOn(*node, demand);
}

Placement Scheduler::EvaluateLocked(const api::Sandbox& sandbox) {
  const std::string& uid = sandbox.meta.uid;
  auto demand_or_wait = DemandOf(sandbox, templates_);
  if (const Waits* waits = std::get_if<Waits>(&demand_or_wait)) {
    ledger_.Withdraw(uid);
    return Placement{"", waits->reason, waits->message};
  }
  Demand& demand = std::get<Demand>(demand_or_wait);
  if (const auto refusals = refusals_.find(uid); refusals != refusals_.end()) {
    std::erase_if(refusals->second,
                  [now = clock_.Now()](const auto& one) { return one.second <= now; });
    for (const auto& [node, until] : refusals->second) demand.refused.insert(node);
    if (refusals->second.empty()) refusals_.erase(refusals);
  }
  if (const auto promise = ledger_.Promised(uid)) {
    if (PromiseStandsLocked(demand, *promise)) return Placement{promise->node, "", ""};
    ledger_.Withdraw(uid);
  }
  const std::string shape = demand.Shape();
  if (const auto known = hopeless_.find(shape); known != hopeless_.end()) return known->second;
  for (NodeView& node : nodes_) node.reserved = ledger_.Reserved(node.name);
  Placement placement = Place(demand, nodes_);
  if (placement.node.empty()) {
    hopeless_.emplace(shape, placement);
  } else {
    const NodeView& node = *FindNode(&nodes_, placement.node);
    ledger_.Promise(uid, Holding{placement.node, AmountOn(node, demand.amount, demand.image)});
  }
  return placement;
}

Scheduler::SandboxPtr Scheduler::UnplacedLocked(const kube::ObjectKey& key,
                                                const std::string& uid) const {
  SandboxPtr sandbox = sandboxes_(key);
  const bool unplaced = sandbox != nullptr && sandbox->meta.uid == uid &&
                        !sandbox->meta.deletion_time && sandbox->status.node_name.empty();
  return unplaced ? sandbox : nullptr;
}

void Scheduler::RefreshLocked(const std::string& uid, Pending* pending) {
  if (pending->epoch == epoch_) return;
  pending->epoch = epoch_;
  // One that is placed or gone is taken off the list by the event that is on its way.
  if (const SandboxPtr sandbox = UnplacedLocked(pending->key, uid))
    pending->latest = EvaluateLocked(*sandbox);
}

std::optional<Placement> Scheduler::Decide(const api::Sandbox& sandbox) {
  std::lock_guard lock(mutex_);
  const SandboxPtr latest = UnplacedLocked(sandbox.meta.key(), sandbox.meta.uid);
  if (latest == nullptr) return std::nullopt;
  const Age age{latest->meta.creation_time, latest->meta.uid};
  for (auto& [older, pending] : waiting_) {
    if (!(older < age)) break;
    RefreshLocked(older.second, &pending);
  }
  Placement placement = EvaluateLocked(*latest);
  if (placement.node.empty()) {
    waiting_[age] = Pending{latest->meta.key(), placement, placement, epoch_};
  } else {
    waiting_.erase(age);
  }
  return placement;
}

void Scheduler::Withdraw(const std::string& uid) {
  std::lock_guard lock(mutex_);
  std::erase_if(waiting_, [&uid](const auto& entry) { return entry.first.second == uid; });
  if (ledger_.Withdraw(uid)) BumpLocked();
}

void Scheduler::Refused(const std::string& uid, const std::string& node) {
  std::lock_guard lock(mutex_);
  refusals_[uid][node] = clock_.Now() + options_.refusal_memory;
}

std::optional<std::chrono::nanoseconds> Scheduler::RefusalEnds(const std::string& uid) const {
  std::lock_guard lock(mutex_);
  const auto refusals = refusals_.find(uid);
  if (refusals == refusals_.end() || refusals->second.empty()) return std::nullopt;
  MonotonicTime first = MonotonicTime::max();
  for (const auto& [node, until] : refusals->second) first = std::min(first, until);
  return std::max(first - clock_.Now(), MonotonicTime::duration::zero());
}

std::vector<kube::ObjectKey> Scheduler::Retry() {
  std::lock_guard lock(mutex_);
  std::vector<kube::ObjectKey> changed;
  for (auto& [age, pending] : waiting_) {
    RefreshLocked(age.second, &pending);
    if (pending.latest != pending.answer) changed.push_back(pending.key);
  }
  return changed;
}

std::size_t Scheduler::Waiting() const {
  std::lock_guard lock(mutex_);
  return waiting_.size();
}

Amount Scheduler::Reserved(const std::string& node) const {
  std::lock_guard lock(mutex_);
  return ledger_.Reserved(node);
}

}  // namespace dormouse::controller
