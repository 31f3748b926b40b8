#include "node-agent/cluster_identity.h"

#include <nlohmann/json.hpp>

#include "src/common/base/files.h"
#include "src/common/base/json_text.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

const kube::ResourceType kNamespaces{"", "v1", "namespaces", false};

std::string IdentityIn(const std::string& file) {
  const auto text = ReadFile(file, 4096);
  if (!text) return "";
  const auto object = nlohmann::json::parse(*text, nullptr, false);
  if (!object.is_object()) return "";
  return object.value("clusterId", "");
}

}  // namespace

Result<std::string> ReadClusterIdentity(kube::Client& client, const std::string& file) {
  const std::string remembered = IdentityIn(file);
  auto text = client.Get(kNamespaces, {"", "kube-system"});
  if (!text) {
    if (remembered.empty()) return Fail(text.error().Wrap("the cluster's identity"));
    log::Warning("the API server does not tell the cluster's identity; the remembered one is used",
                 {{"error", text.error().message()}});
    return remembered;
  }
  DORMOUSE_ASSIGN(const auto ref, kube::RefOfText(*text));
  if (ref.uid != remembered) {
    DORMOUSE_TRY(
        WriteFileAtomically(file, JsonText(nlohmann::json{{"clusterId", ref.uid}}) + "\n"));
  }
  return ref.uid;
}

}  // namespace dormouse
