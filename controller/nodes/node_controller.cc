#include "controller/nodes/node_controller.h"

#include "src/common/api/reasons.h"
#include "src/common/api/sandbox.h"
#include "src/common/base/log.h"

namespace dormouse::controller {
namespace {

using kube::ReconcileResult;

const char* StateName(NodeState state) {
  switch (state) {
    case NodeState::kAlive:
      return "alive";
    case NodeState::kUnknown:
      return "unknown";
    case NodeState::kLost:
      break;
  }
  return "lost";
}

}  // namespace

api::Conditions NodeLostConditions(const api::SandboxNode& node, WallTime now) {
  api::Conditions conditions;
  if (const auto* known = api::FindCondition(node.status.conditions, api::condition::kReady))
    conditions.push_back(*known);
  api::SetCondition(&conditions,
                    {api::condition::kReady,
                     api::ConditionStatus::kUnknown,
                     std::string(api::reasons::kNodeLost),
                     "its agent does not renew its Lease; what runs there may still run",
                     node.meta.generation,
                     {}},
                    now);
  return conditions;
}

NodeController::NodeController(Rooms rooms, std::string lease_namespace,
                               ApplyIdentity apply_identity, ApplyLost apply_lost)
    : rooms_(rooms),
      lease_namespace_(std::move(lease_namespace)),
      apply_identity_(std::move(apply_identity)),
      apply_lost_(std::move(apply_lost)) {
  rooms_.nodes.Subscribe(
      [this](const auto& change) { rooms_.node_queue.Add(change.ref.key.name); });
  rooms_.kubernetes_nodes.Subscribe([this](const auto& change) {
    // A Node's status changes all the time, and is nothing to us.
    if (change.before && change.after && *change.before == *change.after) return;
    rooms_.node_queue.Add(change.ref.key.name);
  });
  rooms_.leases.Subscribe([this](const auto& change) {
    const std::string node = NodeOfLease(change.ref.key.name);
    if (node.empty() || change.after == nullptr) return;
    const bool was_alive = rooms_.health.Of(node).state == NodeState::kAlive;
    rooms_.health.Observe(node, *change.after);
    if (!was_alive) rooms_.node_queue.Add(node);
  });
  rooms_.sandboxes.Subscribe([this](const auto& change) {
    const auto node_of = [](const auto& sandbox) {
      return sandbox ? sandbox->status.node_name : std::string();
    };
    const std::string node = node_of(change.after);
    if (!node.empty() && node != node_of(change.before)) rooms_.node_queue.Add(node);
  });
}

bool NodeController::HasLease(const std::string& name) const {
  return rooms_.leases.Get({lease_namespace_, NodeLeaseName(name)}) != nullptr;
}

NodeHealth::Verdict NodeController::Refresh(const std::string& name) {
  const auto node = rooms_.nodes.Get({"", name});
  const NodeHealth::Verdict verdict = rooms_.health.Of(name);
  const bool changed = node ? rooms_.scheduler.SetNode(*node, verdict.state == NodeState::kAlive)
                            : rooms_.scheduler.RemoveNode(name);
  if (changed) rooms_.sandbox_queue.Add(kRetryKey);
  return verdict;
}

void NodeController::Prime() {
  for (const auto& node : rooms_.nodes.List()) Refresh(node->meta.name);
}

Result<ReconcileResult> NodeController::Reconcile(const std::string& name) {
  const NodeHealth::Verdict verdict = Refresh(name);
  const auto node = rooms_.nodes.Get({"", name});
  const auto held = rooms_.sandboxes.ByIndex(kByNode, name);
  if (node == nullptr && held.empty()) {
    states_.erase(name);
    applied_.erase(name);
    if (!HasLease(name)) rooms_.health.Forget(name);
    return ReconcileResult::Done();
  }
  const auto [state, is_new] = states_.try_emplace(name, verdict.state);
  if (is_new || state->second != verdict.state) {
    log::Info("node", {{"node", name}, {"state", StateName(verdict.state)}});
    state->second = verdict.state;
    if (verdict.state == NodeState::kLost) {
      for (const auto& sandbox : held) rooms_.sandbox_queue.Add(sandbox->meta.key().ToString());
    }
  }
  if (node != nullptr) DORMOUSE_TRY(TendIdentity(*node));
  if (verdict.state == NodeState::kLost) {
    if (node != nullptr) DORMOUSE_TRY(TellLost(*node));
    return ReconcileResult::Done();
  }
  return ReconcileResult::RequeueAfter(verdict.ends_in + std::chrono::milliseconds(1));
}

Result<> NodeController::TellLost(const api::SandboxNode& node) {
  const auto* ready = api::FindCondition(node.status.conditions, api::condition::kReady);
  const bool told = ready != nullptr && ready->status == api::ConditionStatus::kUnknown;
  if (told || node.meta.deletion_time) return {};
  const auto lease = rooms_.leases.Get({lease_namespace_, NodeLeaseName(node.meta.name)});
  return apply_lost_(node, lease ? lease->ref.resource_version : kube::ResourceVersion());
}

Result<> NodeController::TendIdentity(const api::SandboxNode& node) {
  const auto kubernetes = rooms_.kubernetes_nodes.Get({"", node.meta.name});
  if (kubernetes == nullptr || node.meta.deletion_time) return {};
  const Applied wanted{node.meta.uid, *kubernetes};
  const auto last = applied_.find(node.meta.name);
  // Applied once per life of this process even where nothing is missing: a label may be left over.
  if (last != applied_.end() && last->second == wanted && HasIdentityOf(node, *kubernetes))
    return {};
  DORMOUSE_TRY(apply_identity_(node, *kubernetes));
  applied_[node.meta.name] = wanted;
  return {};
}

}  // namespace dormouse::controller
