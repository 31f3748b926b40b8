#include "src/common/api/snapshot_template.h"

#include <nlohmann/json.hpp>

#include "src/common/api/field_reader.h"
#include "src/common/api/spec_check.h"
#include "src/common/base/time.h"

namespace dormouse::api {

using nlohmann::json;

namespace {

void ReadSpec(const FieldReader& spec, SnapshotTemplate* into) {
  const FieldReader sandbox = spec.Object("source").Object("sandbox");
  into->source = sandbox.Text("name");
  if (!IsObjectName(into->source))
    sandbox.Refuse("name", "must be the name of a Sandbox in this namespace, such as s1");
  into->source_after_capture = spec.OneOf<SourceAfterCapture>(
      "sourceAfterCapture", {{"Resume", SourceAfterCapture::kResume},
                             {"Suspend", SourceAfterCapture::kSuspend},
                             {"Delete", SourceAfterCapture::kDelete}});
  if (const auto deadline = spec.Duration("failureDeadline", std::chrono::seconds(1)))
    into->failure_deadline = *deadline;
  if (const auto ttl = spec.Duration("ttl", std::chrono::seconds(0))) into->ttl = *ttl;
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
    const auto time = ParseDuration(status.Text("pauseWindow"));
    if (!time) status.Refuse("pauseWindow", "must be a duration such as 35ms");
    if (time) result.pause_window = std::chrono::duration_cast<std::chrono::milliseconds>(*time);
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
