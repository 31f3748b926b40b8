// Reconciles nodes: tells placement what they offer and whether they live, tells the sandboxes of a
// lost one, and gives each SandboxNode the labels and the owner of its Kubernetes Node.
//
// Keys are node names; also those of nodes that have no SandboxNode but hold sandboxes.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "controller/nodes/node_health.h"
#include "controller/nodes/node_identity.h"
#include "controller/placement/scheduler.h"
#include "controller/stores.h"
#include "src/common/kube/controller_loop.h"
#include "src/common/kube/work_queue.h"

namespace dormouse::controller {

/// Writes IdentityApplyBody.
using ApplyIdentity =
    std::function<Result<>(const api::SandboxNode& node, const KubernetesNode& kubernetes)>;
/// Writes NodeLostConditions to the version that was checked, unless a live read shows a Lease that
/// is newer than `lease`.
using ApplyLost =
    std::function<Result<>(const api::SandboxNode& node, const kube::ResourceVersion& lease)>;

/// What the controller says of a node whose agent is silent: that is all that it knows. The agent
/// takes it back.
[[nodiscard]] api::Conditions NodeLostConditions(const api::SandboxNode& node, WallTime now);

class NodeController {
 public:
  struct Rooms {
    SandboxNodeStore& nodes;
    KubernetesNodeStore& kubernetes_nodes;
    LeaseStore& leases;
    SandboxStore& sandboxes;
    Scheduler& scheduler;
    NodeHealth& health;
    kube::WorkQueue& node_queue;
    kube::WorkQueue& sandbox_queue;
  };

  /// All rooms must outlive it. Subscribes to the stores: before their reflectors start. One worker
  /// only. `lease_namespace` is where the agents keep their Leases.
  NodeController(Rooms rooms, std::string lease_namespace, ApplyIdentity apply_identity,
                 ApplyLost apply_lost);

  Result<kube::ReconcileResult> Reconcile(const std::string& name);

  /// Tells placement of every node, writing nothing: once before sandboxes are reconciled, so that
  /// none is told that there is no node only because nodes come second.
  void Prime();

 private:
  [[nodiscard]] bool HasLease(const std::string& name) const;
  NodeHealth::Verdict Refresh(const std::string& name);
  Result<> TendIdentity(const api::SandboxNode& node);
  Result<> TellLost(const api::SandboxNode& node);

  Rooms rooms_;
  const std::string lease_namespace_;
  ApplyIdentity apply_identity_;
  ApplyLost apply_lost_;
  struct Applied {
    std::string sandbox_node_uid;
    KubernetesNode kubernetes;
    bool operator==(const Applied&) const = default;
  };
  std::map<std::string, Applied> applied_;   ///< what we applied last, by name
  std::map<std::string, NodeState> states_;  ///< as last told
};

}  // namespace dormouse::controller
