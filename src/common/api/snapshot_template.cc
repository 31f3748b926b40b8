#include "src/common/api/snapshot_template.h"

#include <nlohmann/json.hpp>

#include "src/common/api/field_reader.h"
#include "src/common/base/time.h"

namespace dormouse::api {

using nlohmann::json;

namespace {

std::chrono::nanoseconds ReadDuration(const FieldReader& spec, const char* key,
                                      std::chrono::nanoseconds fallback) {
  if (!spec.Has(key)) return fallback;
  const auto time = ParseDuration(spec.Text(key));
  if (!time) spec.Refuse(key, "must be a duration such as 5m");
  return time.value_or(fallback);
}

void ReadSpec(const FieldReader& spec, SnapshotTemplate* into) {
  const FieldReader sandbox = spec.Object("source").Object("sandbox");
  into->source = sandbox.Text("name");
  if (into->source.empty()) sandbox.Refuse("name", "must not be empty");
  into->source_after_capture = spec.OneOf<SourceAfterCapture>(
      "sourceAfterCapture", {{"Resume", SourceAfterCapture::kResume},
                             {"Suspend", SourceAfterCapture::kSuspend},
                             {"Delete", SourceAfterCapture::kDelete}});
  into->failure_deadline = ReadDuration(spec, "failureDeadline", into->failure_deadline);
  into->ttl = ReadDuration(spec, "ttl", into->ttl);
  into->deletion_policy = spec.OneOf<DeletionPolicy>(
      "deletionPolicy", {{"Delete", DeletionPolicy::kDelete}, {"Retain", DeletionPolicy::kRetain}});
}

SnapshotTemplateStatus::Compatibility ReadCompatibility(const FieldReader& needs) {
  SnapshotTemplateStatus::Compatibility result;
  result.hypervisor = needs.Text("hypervisor");
  result.version = needs.Text("version");
  result.format_version = needs.TextOrInteger("formatVersion");
  result.cpu = needs.Text("cpu");
  result.kernel_digest = needs.Text("kernelDigest");
  result.image_digest = needs.Text("imageDigest");
  result.guest_version = needs.Text("guestVersion");
  return result;
}

SnapshotTemplateStatus ReadTemplateStatus(const FieldReader& status) {
  SnapshotTemplateStatus result;
  result.observed_generation = status.Integer("observedGeneration", 0, INT64_MAX).value_or(0);
  result.node_name = status.Text("nodeName");
  result.phase = status.Text("phase");
  result.ready_to_use = status.Flag("readyToUse", false);
  result.creation_time = status.Time("creationTime");
  if (const FieldReader error = status.Object("error"); error.present()) {
    result.error = SnapshotTemplateStatus::Failure{error.Time("time").value_or(WallTime{}),
                                                   error.Text("message")};
  }
  result.source_uid = status.Text("sourceUID");
  result.nodes = status.TextList("nodes");
  result.references = static_cast<int>(status.Integer("references", 0, INT32_MAX).value_or(0));
  result.memory_bytes = status.Integer("memoryBytes", 0, INT64_MAX).value_or(0);
  result.disk_bytes = status.Integer("diskBytes", 0, INT64_MAX).value_or(0);
  result.allocated_bytes = status.Integer("allocatedBytes", 0, INT64_MAX).value_or(0);
  if (status.Has("pauseWindow")) {
    result.pause_window = std::chrono::duration_cast<std::chrono::milliseconds>(
        ReadDuration(status, "pauseWindow", std::chrono::nanoseconds(0)));
  }
  if (const FieldReader resources = status.Object("resources"); resources.present()) {
    Resources baked;
    baked.vcpus = static_cast<int>(resources.Integer("cpu", 1, 64).value_or(baked.vcpus));
    baked.memory_bytes = resources.Bytes("memory").value_or(baked.memory_bytes);
    result.resources = baked;
  }
  if (const FieldReader needs = status.Object("compatibility"); needs.present()) {
    result.compatibility = ReadCompatibility(needs);
  }
  result.conditions = ParseConditions(status.List("conditions"));
  return result;
}

}  // namespace

Result<SnapshotTemplate> ParseSnapshotTemplate(const json& object) {
  SnapshotTemplate result;
  DORMOUSE_ASSIGN(result.meta, kube::ParseObjectMeta(object));
  if (const auto kind = object.find("kind"); kind != object.end() && *kind != "SnapshotTemplate") {
    return Fail(ErrorCode::kCorrupt,
                result.meta.key().ToString() + ": kind is not SnapshotTemplate");
  }
  std::optional<Error> error;
  const FieldReader top(&object, "", &error);
  ReadSpec(top.Object("spec"), &result);
  result.status = ReadTemplateStatus(top.Object("status"));
  if (error) return Fail(*error);
  return result;
}

}  // namespace dormouse::api
