#include "src/common/api/snapshot_template.h"

#include <nlohmann/json.hpp>

#include "src/common/api/field_reader.h"

namespace dormouse::api {

using nlohmann::json;

Result<SnapshotTemplate> ParseSnapshotTemplate(const json& object) {
  SnapshotTemplate result;
  DORMOUSE_ASSIGN(result.meta, kube::ParseObjectMeta(object));
  if (const auto kind = object.find("kind"); kind != object.end() && *kind != "SnapshotTemplate") {
    return Fail(ErrorCode::kCorrupt,
                result.meta.key().ToString() + ": kind is not SnapshotTemplate");
  }
  std::optional<Error> error;
  const FieldReader top(&object, "", &error);
  result.source = top.Object("spec").Object("source").Object("sandbox").Text("name");
  if (result.source.empty()) top.Refuse("spec.source.sandbox.name", "must not be empty");
  const FieldReader status = top.Object("status");
  result.status.node_name = status.Text("nodeName");
  result.status.phase = status.Text("phase");
  result.status.ready_to_use = status.Flag("readyToUse", false);
  result.status.source_uid = status.Text("sourceUID");
  result.status.nodes = status.TextList("nodes");
  if (const FieldReader resources = status.Object("resources"); resources.present()) {
    Resources baked;
    baked.vcpus = static_cast<int>(resources.Integer("cpu", 1, 64).value_or(baked.vcpus));
    baked.memory_bytes = resources.Bytes("memory").value_or(baked.memory_bytes);
    result.status.resources = baked;
  }
  result.status.conditions = ParseConditions(status.List("conditions"));
  if (error) return Fail(*error);
  return result;
}

}  // namespace dormouse::api
