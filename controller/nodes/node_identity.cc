#include "controller/nodes/node_identity.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/common/api/sandbox.h"
#include "src/common/base/json_text.h"

namespace dormouse::controller {

using nlohmann::json;

Result<KubernetesNode> ParseKubernetesNode(const json& object) {
  DORMOUSE_ASSIGN(kube::ObjectMeta meta, kube::ParseObjectMeta(object));
  return KubernetesNode{std::move(meta.name), std::move(meta.uid), std::move(meta.labels)};
}

bool HasIdentityOf(const api::SandboxNode& node, const KubernetesNode& kubernetes) {
  const auto& labels = node.meta.labels;
  const bool labelled =
      std::all_of(kubernetes.labels.begin(), kubernetes.labels.end(), [&labels](const auto& label) {
        const auto found = labels.find(label.first);
        return found != labels.end() && found->second == label.second;
      });
  const auto& owners = node.meta.owners;
  return labelled && std::any_of(owners.begin(), owners.end(), [&kubernetes](const auto& owner) {
           return owner.uid == kubernetes.uid;
         });
}

std::string IdentityApplyBody(const api::SandboxNode& node, const KubernetesNode& kubernetes) {
  const json owner = {
      {"apiVersion", "v1"}, {"kind", "Node"}, {"name", kubernetes.name}, {"uid", kubernetes.uid}};
  const json body = {{"apiVersion", api::kApiVersion},
                     {"kind", "SandboxNode"},
                     {"metadata",
                      {{"name", node.meta.name},
                       {"uid", node.meta.uid},
                       {"labels", kubernetes.labels},
                       {"ownerReferences", json::array({owner})}}}};
  return JsonText(body);
}

}  // namespace dormouse::controller
