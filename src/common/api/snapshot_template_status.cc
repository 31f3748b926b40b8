// The status of a SnapshotTemplate as its two writers send it. Each sends its own fields only: in a
// server-side apply, whoever names a field owns it.
#include <nlohmann/json.hpp>

#include "src/common/api/quantity.h"
#include "src/common/api/snapshot_template.h"
#include "src/common/api/status_fields.h"

namespace dormouse::api {

using nlohmann::json;

namespace {

json ErrorToJson(const SnapshotTemplateStatus::Failure& error) {
  return {{"time", FormatTime(error.time)}, {"message", error.message}};
}

json CompatibilityToJson(const SnapshotTemplateStatus::Compatibility& needs) {
  json result = json::object();
  PutText(&result, "hypervisor", needs.hypervisor);
  PutText(&result, "version", needs.version);
  PutText(&result, "formatVersion", needs.format_version);
  PutText(&result, "cpu", needs.cpu);
  PutText(&result, "kernelDigest", needs.kernel_digest);
  PutText(&result, "imageDigest", needs.image_digest);
  PutText(&result, "guestVersion", needs.guest_version);
  return result;
}

}  // namespace

json AgentStatusToJson(const SnapshotTemplateStatus& status) {
  // Sent even when they say nothing: a reader takes an absent count, or an absent word that it can
  // be started from, for an agent that has not looked yet.
  json result = {{"readyToUse", status.ready_to_use},
                 {"references", status.references},
                 {"conditions", ConditionsToJson(status.conditions)}};
  PutCount(&result, "observedGeneration", status.observed_generation);
  PutText(&result, "phase", status.phase);
  PutTime(&result, "creationTime", status.creation_time);
  if (status.error) result["error"] = ErrorToJson(*status.error);
  PutText(&result, "sourceUID", status.source_uid);
  if (!status.nodes.empty()) result["nodes"] = status.nodes;
  PutCount(&result, "memoryBytes", status.memory_bytes);
  PutCount(&result, "diskBytes", status.disk_bytes);
  PutCount(&result, "allocatedBytes", status.allocated_bytes);
  if (status.pause_window) result["pauseWindow"] = FormatMilliseconds(*status.pause_window);
  if (status.resources) {
    result["resources"] = {{"cpu", status.resources->vcpus},
                           {"memory", FormatBytes(status.resources->memory_bytes)}};
  }
  if (status.compatibility) {
    PutObject(&result, "compatibility", CompatibilityToJson(*status.compatibility));
  }
  return result;
}

json ControllerStatusToJson(const SnapshotTemplateStatus& status) {
  json result = json::object();
  PutText(&result, "nodeName", status.node_name);
  PutText(&result, "phase", status.phase);
  if (status.error) result["error"] = ErrorToJson(*status.error);
  Conditions own;
  for (const char* type : {condition::kReady, condition::kFailed}) {
    if (const Condition* present = FindCondition(status.conditions, type)) own.push_back(*present);
  }
  result["conditions"] = ConditionsToJson(own);
  return result;
}

}  // namespace dormouse::api
