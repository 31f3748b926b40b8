// What a SandboxNode has of its Kubernetes Node: the labels, by which sandboxes select, and the
// owner, by which it goes when the Node goes. Pure.
#pragma once

#include <map>
#include <string>

#include "src/common/api/sandbox_node.h"

namespace dormouse::controller {

/// What of a Kubernetes Node is read.
struct KubernetesNode {
  std::string name, uid;
  std::map<std::string, std::string> labels;
  bool operator==(const KubernetesNode&) const = default;
};

Result<KubernetesNode> ParseKubernetesNode(const nlohmann::json& object);

/// True when `node` has each label of `kubernetes` and is owned by it.
[[nodiscard]] bool HasIdentityOf(const api::SandboxNode& node, const KubernetesNode& kubernetes);

/// The server-side apply that gives `node` the labels and the owner. Labels that were applied
/// before and are not named any more go; those of others stay. Holds the UID, so that it reaches no
/// successor.
[[nodiscard]] std::string IdentityApplyBody(const api::SandboxNode& node,
                                            const KubernetesNode& kubernetes);

}  // namespace dormouse::controller
