#include "src/common/api/sandbox_node.h"

#include <nlohmann/json.hpp>

#include "src/common/api/field_reader.h"
#include "src/common/api/quantity.h"

namespace dormouse::api {
namespace {

using nlohmann::json;

constexpr std::string_view kDigestAlgorithm = "sha256:";

NodeAmount ReadAmount(const FieldReader& amount) {
  NodeAmount result;
  result.vcpus = amount.Bytes("cpu").value_or(0);
  result.memory_bytes = amount.Bytes("memory").value_or(0);
  result.disk_bytes = amount.Bytes("disk").value_or(0);
  result.running = static_cast<int>(amount.Integer("running", 0, INT32_MAX).value_or(0));
  result.sleeping = static_cast<int>(amount.Integer("sleeping", 0, INT32_MAX).value_or(0));
  return result;
}

json AmountToJson(const NodeAmount& amount) {
  return {{"cpu", amount.vcpus},
          {"memory", FormatBytes(amount.memory_bytes)},
          {"disk", FormatBytes(amount.disk_bytes)},
          {"running", amount.running},
          {"sleeping", amount.sleeping}};
}

SandboxNodeStatus ReadNodeStatus(const FieldReader& status) {
  SandboxNodeStatus result;
  result.capacity = ReadAmount(status.Object("capacity"));
  result.allocated = ReadAmount(status.Object("allocated"));
  result.hypervisor = status.Object("hypervisor").Text("name");
  result.hypervisor_version = status.Object("hypervisor").Text("version");
  result.kernel_version = status.Text("kernelVersion");
  result.cpu_model = status.Text("cpuModel");
  result.endpoint = status.Text("endpoint");
  result.file_system = status.Object("storage").Text("fileSystem");
  result.reflink = status.Object("storage").Flag("reflink", false);
  status.ForEach("images", [&result](const FieldReader& entry) {
    NodeImage image{entry.Text("name"), entry.Text("digest"),
                    entry.Integer("sizeBytes", 0, INT64_MAX).value_or(0)};
    if (image.name.empty()) entry.Refuse("name", "must not be empty");
    if (image.digest.starts_with(kDigestAlgorithm)) image.digest.erase(0, kDigestAlgorithm.size());
    result.images.push_back(std::move(image));
  });
  result.templates = status.TextList("templates");
  result.conditions = ParseConditions(status.List("conditions"));
  return result;
}

}  // namespace

Result<SandboxNode> ParseSandboxNode(const json& object) {
  SandboxNode node;
  DORMOUSE_ASSIGN(node.meta, kube::ParseObjectMeta(object));
  if (const auto kind = object.find("kind"); kind != object.end() && *kind != "SandboxNode") {
    return Fail(ErrorCode::kCorrupt, node.meta.name + ": kind is not SandboxNode");
  }
  std::optional<Error> error;
  const FieldReader top(&object, "", &error);
  const FieldReader spec = top.Object("spec");
  node.unschedulable = spec.Flag("unschedulable", false);
  spec.ForEach("taints", [&node](const FieldReader& entry) {
    node.taints.push_back({entry.Text("key"), entry.Text("value"), entry.Text("effect")});
  });
  node.status = ReadNodeStatus(top.Object("status"));
  if (error) return Fail(*error);
  return node;
}

json SandboxNodeStatusToJson(const SandboxNodeStatus& status) {
  json result = {{"capacity", AmountToJson(status.capacity)},
                 {"allocated", AmountToJson(status.allocated)}};
  if (!status.hypervisor.empty() || !status.hypervisor_version.empty()) {
    result["hypervisor"] = {{"name", status.hypervisor}, {"version", status.hypervisor_version}};
  }
  if (!status.kernel_version.empty()) result["kernelVersion"] = status.kernel_version;
  if (!status.cpu_model.empty()) result["cpuModel"] = status.cpu_model;
  if (!status.endpoint.empty()) result["endpoint"] = status.endpoint;
  if (!status.file_system.empty()) {
    result["storage"] = {{"fileSystem", status.file_system}, {"reflink", status.reflink}};
  }
  json images = json::array();
  for (const NodeImage& image : status.images) {
    json entry = {{"name", image.name}, {"sizeBytes", image.size_bytes}};
    if (!image.digest.empty()) entry["digest"] = std::string(kDigestAlgorithm) + image.digest;
    images.push_back(std::move(entry));
  }
  result["images"] = std::move(images);
  result["templates"] = status.templates;
  result["conditions"] = ConditionsToJson(status.conditions);
  return result;
}

}  // namespace dormouse::api
