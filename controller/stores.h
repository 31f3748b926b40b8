// What the controller holds of the cluster, and the names by which its parts speak of it.
#pragma once

#include "controller/nodes/node_identity.h"
#include "src/common/api/sandbox.h"
#include "src/common/api/sandbox_node.h"
#include "src/common/api/snapshot_template.h"
#include "src/common/kube/lease.h"
#include "src/common/kube/store.h"

namespace dormouse::controller {

using SandboxStore = kube::Store<api::Sandbox>;
using SandboxNodeStore = kube::Store<api::SandboxNode>;
using SnapshotTemplateStore = kube::Store<api::SnapshotTemplate>;
using KubernetesNodeStore = kube::Store<KubernetesNode>;
using LeaseStore = kube::Store<kube::LeaseRecord>;

/// A key of the sandbox queue that stands for "decide again for all that wait"; no object has this
/// name.
inline constexpr char kRetryKey[] = "/retry";
/// ... and one that stands for "look whether the clock was set".
inline constexpr char kClockKey[] = "/clock";
/// The index of the sandbox store by status.nodeName.
inline constexpr char kByNode[] = "node";
/// ... and by the template that a sandbox starts from, as "namespace/name".
inline constexpr char kByTemplate[] = "template";

}  // namespace dormouse::controller
