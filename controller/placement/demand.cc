#include "controller/placement/demand.h"

#include <memory>

#include "src/common/api/quantity.h"
#include "src/common/api/reasons.h"

namespace dormouse::controller {
namespace {

namespace reasons = api::reasons;

Waits Wait(std::string_view reason, std::string message) {
  return {std::string(reason), std::move(message)};
}

Amount AmountOf(const api::Resources& resources, int64_t disk_bytes) {
  return {resources.vcpus, resources.memory_bytes, 1, disk_bytes};
}

std::string Text(const api::Resources& resources) {
  return std::to_string(resources.vcpus) + " vCPU and " + api::FormatBytes(resources.memory_bytes);
}

bool HasNoMachine(const api::Sandbox& sandbox) {
  if (api::IsTrueNow(sandbox, api::condition::kFinished)) return true;
  if (sandbox.spec.operating_mode == api::OperatingMode::kStopped) {
    const api::Condition* ready = api::FindConditionNow(sandbox, api::condition::kReady);
    return ready != nullptr && ready->reason == reasons::kStopped;
  }
  return sandbox.spec.operating_mode == api::OperatingMode::kSuspended &&
         api::IsTrueNow(sandbox, api::condition::kSuspended);
}

std::variant<Demand, Waits> DemandOfClone(const api::Sandbox& sandbox,
                                          const TemplateLookup& templates) {
  const std::string& name = sandbox.spec.snapshot_template;
  const auto source = templates(sandbox.meta.ns, name);
  if (source == nullptr) {
    return Wait(reasons::kSourceNotReady,
                "there is no SnapshotTemplate " + name + " in this namespace yet");
  }
  if (source->meta.deletion_time) {
    return Wait(reasons::kSourceNotReady, "the SnapshotTemplate " + name + " is being deleted");
  }
  if (!source->status.ready_to_use) {
    const auto* ready = api::FindCondition(source->status.conditions, api::condition::kReady);
    return Wait(reasons::kSourceNotReady, "the SnapshotTemplate " + name + " is not ready" +
                                              (ready == nullptr ? " yet" : ": " + ready->message));
  }
  const api::Resources baked = source->status.resources.value_or(sandbox.EffectiveResources());
  const api::AskedResources& asked = sandbox.spec.asked;
  if (asked.vcpus.value_or(baked.vcpus) != baked.vcpus ||
      asked.memory_bytes.value_or(baked.memory_bytes) != baked.memory_bytes) {
    return Wait(reasons::kInvalidSpec, "spec.resources: the SnapshotTemplate " + name +
                                           " was frozen with " + Text(baked) +
                                           " memory: leave resources out, or write that");
  }
  Demand demand;
  demand.amount = AmountOf(baked, source->status.disk_bytes);
  demand.template_name = name;
  demand.holders.insert(source->status.nodes.begin(), source->status.nodes.end());
  if (!source->status.node_name.empty()) demand.holders.insert(source->status.node_name);
  return demand;
}

}  // namespace

std::variant<Demand, Waits> DemandOf(const api::Sandbox& sandbox, const TemplateLookup& templates) {
  Demand demand;
  if (!sandbox.spec.snapshot_template.empty()) {
    auto clone = DemandOfClone(sandbox, templates);
    if (std::holds_alternative<Waits>(clone)) return clone;
    demand = std::move(std::get<Demand>(clone));
  } else {
    demand.amount = AmountOf(sandbox.EffectiveResources(), sandbox.spec.disk_bytes.value_or(0));
    demand.image = sandbox.spec.image;
  }
  demand.node_selector = sandbox.spec.node_selector;
  demand.tolerations = sandbox.spec.tolerations;
  return demand;
}

std::optional<Holding> HoldingOf(const api::Sandbox& sandbox, const TemplateLookup& templates) {
  if (sandbox.status.node_name.empty()) return std::nullopt;
  api::Resources resources = sandbox.EffectiveResources();
  int64_t disk_bytes = sandbox.spec.disk_bytes.value_or(0);
  if (!sandbox.spec.snapshot_template.empty()) {
    const auto source = templates(sandbox.meta.ns, sandbox.spec.snapshot_template);
    if (source != nullptr && source->status.resources) resources = *source->status.resources;
    if (source != nullptr) disk_bytes = source->status.disk_bytes;
  }
  if (sandbox.status.resources) resources = *sandbox.status.resources;
  if (sandbox.status.disk_bytes) disk_bytes = *sandbox.status.disk_bytes;
  if (HasNoMachine(sandbox)) return Holding{sandbox.status.node_name, {0, 0, 0, disk_bytes}};
  return Holding{sandbox.status.node_name, AmountOf(resources, disk_bytes)};
}

}  // namespace dormouse::controller
