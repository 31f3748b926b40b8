// The status of a Sandbox as its two writers send it. Each sends its own fields only: in a
// server-side apply, whoever names a field owns it.
#include <nlohmann/json.hpp>

#include "src/common/api/quantity.h"
#include "src/common/api/sandbox.h"
#include "src/common/api/status_fields.h"
#include "src/common/base/json_text.h"

namespace dormouse::api {
namespace {

using nlohmann::json;

template <typename Predicate>
json ConditionsWhere(const Conditions& conditions, Predicate keep) {
  Conditions kept;
  for (const Condition& condition : conditions) {
    if (keep(condition)) kept.push_back(condition);
  }
  return ConditionsToJson(kept);
}

}  // namespace

json AgentStatusToJson(const SandboxStatus& status) {
  json result = json::object();
  if (status.observed_generation > 0) result["observedGeneration"] = status.observed_generation;
  PutText(&result, "phase", status.phase);
  result["conditions"] = ConditionsWhere(status.conditions, [](const Condition& condition) {
    return condition.type != condition::kScheduled;
  });
  if (status.resources) {
    result["resources"] = {{"cpu", status.resources->vcpus},
                           {"memory", FormatBytes(status.resources->memory_bytes)}};
    if (status.disk_bytes) result["resources"]["disk"] = FormatBytes(*status.disk_bytes);
  }
  if (status.exit_code) result["exitCode"] = *status.exit_code;
  PutTime(&result, "startedAt", status.started_at);
  PutTime(&result, "suspendedAt", status.suspended_at);
  PutTime(&result, "finishedAt", status.finished_at);
  PutTime(&result, "lastActiveTime", status.last_active_time);
  PutTime(&result, "idleDeadline", status.idle_deadline);
  if (status.restart_count > 0) result["restartCount"] = status.restart_count;
  json network = json::object();
  PutText(&network, "nodeIP", status.network.node_ip);
  PutText(&network, "hostIP", status.network.host_ip);
  PutText(&network, "guestIP", status.network.guest_ip);
  PutObject(&result, "network", std::move(network));
  json vm = json::object();
  PutText(&vm, "hypervisor", status.vm.hypervisor);
  PutText(&vm, "version", status.vm.version);
  PutText(&vm, "startMode", status.vm.start_mode);
  if (status.vm.boot_to_ready) vm["bootToReady"] = FormatMilliseconds(*status.vm.boot_to_ready);
  PutObject(&result, "vm", std::move(vm));
  if (status.snapshot) {
    result["snapshot"] = {{"memoryBytes", status.snapshot->memory_bytes},
                          {"writtenBytes", status.snapshot->written_bytes},
                          {"pauseWindow", FormatMilliseconds(status.snapshot->pause_window)},
                          {"generation", status.snapshot->generation}};
    if (const auto& stages = status.snapshot->stages) {
      for (const auto& [name, took] : kCaptureStages)
        result["snapshot"]["stages"][name] = FormatMilliseconds((*stages).*took);
    }
  }
  if (status.storage) {
    result["storage"] = {{"cowUsedBytes", status.storage->cow_used_bytes},
                         {"cowUsedPercent", status.storage->cow_used_percent}};
  }
  return result;
}

json ControllerStatusToJson(const SandboxStatus& status) {
  json result = json::object();
  PutText(&result, "nodeName", status.node_name);
  PutText(&result, "phase", status.phase);
  result["conditions"] = ConditionsWhere(status.conditions, [](const Condition& condition) {
    return condition.type == condition::kScheduled || condition.type == condition::kReady;
  });
  return result;
}

std::string StatusApplyBody(const char* kind, const kube::ObjectMeta& checked, const json& status) {
  json metadata = {{"name", checked.name}, {"resourceVersion", checked.resource_version.text()}};
  PutText(&metadata, "namespace", checked.ns);
  const json body = {
      {"apiVersion", kApiVersion}, {"kind", kind}, {"metadata", metadata}, {"status", status}};
  return JsonText(body);
}

}  // namespace dormouse::api
