#include "node-agent/sandbox/template_status.h"

#include "node-agent/memory/manifest.h"
#include "src/common/api/reasons.h"

namespace dormouse {
namespace {

using api::Condition;
using api::ConditionStatus;
namespace reasons = api::reasons;
namespace phase = api::template_phase;

// A message names so many; the count says the rest.
constexpr size_t kNamedHolders = 5;

Condition Make(const char* type, bool status, std::string_view reason, std::string message) {
  return {type,
          status ? ConditionStatus::kTrue : ConditionStatus::kFalse,
          std::string(reason),
          std::move(message),
          0,
          {}};
}

Condition Ready(const api::SnapshotTemplate& object, const TemplateStatusInputs& in) {
  const char* type = api::condition::kReady;
  if (object.meta.deletion_time)
    return Make(type, false, reasons::kTerminating, "the template is being deleted");
  if (in.failed) return Make(type, false, in.failed->reason, in.failed->message);
  if (in.record != nullptr && in.incompatible)
    return Make(type, false, reasons::kSnapshotIncompatible, *in.incompatible);
  if (in.record != nullptr && in.damaged)
    return Make(type, false, reasons::kResumeFailed, "nothing can start from it: " + *in.damaged);
  if (in.record != nullptr) return Make(type, true, reasons::kReady, "sandboxes can start from it");
  if (in.waiting) return Make(type, false, in.waiting->reason, in.waiting->message);
  return Make(type, false, reasons::kCapturing, "the source is being captured");
}

Condition InUse(const std::vector<std::string>& holders) {
  if (holders.empty())
    return Make(api::condition::kInUse, false, reasons::kNotInUse, "no sandbox needs its files");
  std::string named;
  for (size_t i = 0; i < holders.size() && i < kNamedHolders; ++i)
    named += (i > 0 ? ", " : "") + holders[i];
  if (holders.size() > kNamedHolders)
    named += " and " + std::to_string(holders.size() - kNamedHolders) + " more";
  return Make(api::condition::kInUse, true, reasons::kInUse, "needed by " + named);
}

const char* PhaseOf(const api::SnapshotTemplate& object, const TemplateStatusInputs& in) {
  if (object.meta.deletion_time) return phase::kDeleting;
  if (in.failed) return phase::kFailed;
  if (in.record != nullptr) return phase::kReady;
  return in.capturing ? phase::kCapturing : phase::kPending;
}

void SayWhatItIs(const TemplateRecord& record, const std::string& node,
                 api::SnapshotTemplateStatus* status) {
  status->creation_time = record.captured_at;
  status->source_uid = record.source_uid;
  status->nodes = {node};
  status->memory_bytes = record.resources.memory_bytes;
  status->disk_bytes = record.disk_bytes;
  status->allocated_bytes = record.AllocatedBytes();
  status->pause_window = std::chrono::milliseconds(record.figures.pause_window_ms);
  status->resources = record.resources;
  status->compatibility = api::SnapshotTemplateStatus::Compatibility{
      record.vmm_name,     record.vmm_version,   std::to_string(memory::Manifest::kVersion),
      record.cpu_model,    record.kernel_digest, record.image_digest,
      record.guest_version};
}

}  // namespace

api::SnapshotTemplateStatus ComputeTemplateStatus(const api::SnapshotTemplate& object,
                                                  const TemplateStatusInputs& in, WallTime now) {
  const api::SnapshotTemplateStatus& before = object.status;
  api::SnapshotTemplateStatus status;
  status.node_name = before.node_name;
  status.observed_generation = object.meta.generation;
  status.phase = PhaseOf(object, in);
  for (const Condition& condition : before.conditions) {
    if (condition.type != api::condition::kReleased) status.conditions.push_back(condition);
  }
  const auto set = [&](Condition condition) {
    condition.observed_generation = object.meta.generation;
    api::SetCondition(&status.conditions, std::move(condition), now);
  };
  set(Ready(object, in));
  if (in.record != nullptr) {
    SayWhatItIs(*in.record, in.node_name, &status);
    set(in.incompatible ? Make(api::condition::kCompatible, false, reasons::kSnapshotIncompatible,
                               *in.incompatible)
                        : Make(api::condition::kCompatible, true, reasons::kCompatible,
                               "this node can run it"));
    set(InUse(in.holders));
  }
  status.ready_to_use = api::IsTrue(status.conditions, api::condition::kReady);
  status.references = static_cast<int>(in.holders.size());
  if (in.failed) {
    set(Make(api::condition::kFailed, true, in.failed->reason, in.failed->message));
    status.error =
        before.error ? before.error : api::SnapshotTemplateStatus::Failure{now, in.failed->message};
  }
  if (in.released) {
    set(Make(api::condition::kReleased, true, reasons::kReleased,
             "nothing of it is left to do on the node"));
  }
  return status;
}

}  // namespace dormouse
