#include "node-agent/record/template_record.h"

#include <nlohmann/json.hpp>

#include "node-agent/record/record_json.h"
#include "src/common/api/quantity.h"
#include "src/common/base/hash.h"
#include "src/common/base/json_text.h"
#include "src/common/base/sealed_json.h"

namespace dormouse {
namespace {

using nlohmann::json;

constexpr Seal kTemplateSeal{"template", TemplateRecord::kVersion};
constexpr size_t kUidDigits = 32;

TemplateRecord TemplateFromJson(const json& object) {
  TemplateRecord record;
  record.cluster_id = object.at("clusterId");
  record.uid = ReadUid(object, "uid");
  record.ns = object.at("namespace");
  record.name = object.at("name");
  record.source_uid = object.at("sourceUid");
  record.captured_at = ReadTime(object, "capturedAt").value();
  record.has_workload = object.at("hasWorkload");
  static_cast<Shape&>(record) = ReadShape(object);
  record.vmm_name = object.at("traits").at("vmm");
  record.vmm_version = object.at("traits").at("vmmVersion");
  record.cpu_model = object.at("traits").at("cpu");
  // Nothing in records of before it was asked for.
  record.guest_version = object.at("traits").value("guestVersion", "");
  record.figures = ReadFigures(object.at("figures"));
  record.retained = object.at("retained");
  record.orphaned_at = ReadTime(object, "orphanedAt");
  return record;
}

json TemplateToJson(const TemplateRecord& record) {
  json object = {{"clusterId", record.cluster_id},
                 {"uid", record.uid.text()},
                 {"namespace", record.ns},
                 {"name", record.name},
                 {"sourceUid", record.source_uid},
                 {"capturedAt", TimeOrNull(record.captured_at)},
                 {"hasWorkload", record.has_workload},
                 {"traits",
                  {{"vmm", record.vmm_name},
                   {"vmmVersion", record.vmm_version},
                   {"cpu", record.cpu_model},
                   {"guestVersion", record.guest_version}}},
                 {"figures", FiguresToJson(record.figures)},
                 {"retained", record.retained},
                 {"orphanedAt", TimeOrNull(record.orphaned_at)}};
  object.update(ShapeToJson(record));
  return object;
}

}  // namespace

std::string EncodeTemplateRecord(const TemplateRecord& record) {
  json now = TemplateToJson(record);
  if (!record.unknown.empty()) {
    const json read = json::parse(record.unknown);
    KeepUnknown(read, TemplateToJson(TemplateFromJson(read)), &now);
  }
  return SealJson(kTemplateSeal, now);
}

Result<TemplateRecord> DecodeTemplateRecord(std::string_view text) {
  TemplateRecord record;
  DORMOUSE_TRY(OpenSealedJson(kTemplateSeal, text, [&](const json& body) {
    record = TemplateFromJson(body);
    record.unknown = UnknownIn(body, TemplateToJson(record));
  }));
  return record;
}

TemplateRecord TemplateOf(const Record& source) {
  TemplateRecord record;
  static_cast<Shape&>(record) = source;
  record.source_uid = source.uid.text();
  return record;
}

Record CloneOf(const TemplateRecord& source) {
  Record record;
  static_cast<Shape&>(record) = source;
  record.origin = Origin{source.uid, source.IsBootSnapshot(), source.has_workload};
  record.sleeping = 0;
  return record;
}

memory::Requirements NeedsOf(const TemplateRecord& source) {
  memory::Requirements needs;
  needs.vmm_digest = source.vmm_digest;
  needs.kernel_digest = source.kernel_digest;
  needs.initramfs_digest = source.initramfs_digest;
  needs.image_digest = source.image_digest;
  needs.vmm_version = source.vmm_version;
  needs.cpu_model = source.cpu_model;
  needs.guest_version = source.guest_version;
  return needs;
}

std::optional<std::string> Contradiction(const api::SandboxSpec& spec,
                                         const TemplateRecord& source) {
  const std::string frozen = "the SnapshotTemplate " + source.name + " was frozen with ";
  if (spec.asked.vcpus.value_or(source.resources.vcpus) != source.resources.vcpus ||
      spec.asked.memory_bytes.value_or(source.resources.memory_bytes) !=
          source.resources.memory_bytes) {
    return "spec.resources: " + frozen + std::to_string(source.resources.vcpus) + " vCPU and " +
           api::FormatBytes(source.resources.memory_bytes) +
           " memory: leave resources out, or write that";
  }
  if (spec.disk_bytes && *spec.disk_bytes != source.disk_bytes) {
    return "spec.disk.size: " + frozen + "a disk of " + api::FormatBytes(source.disk_bytes) +
           ": leave disk out, or write that";
  }
  if (!spec.workload.empty() && source.has_workload) {
    return "spec.command: " + frozen +
           "a workload that goes on in each clone: leave command and args out, or take a template "
           "of an idle machine";
  }
  return std::nullopt;
}

api::SandboxUid BootSnapshotUid(const Shape& resolved, std::string_view ns,
                                std::string_view traits) {
  const json shape = {ns,
                      traits,
                      resolved.image_digest,
                      resolved.disk_bytes,
                      resolved.resources.vcpus,
                      resolved.resources.memory_bytes,
                      resolved.vmm_digest,
                      resolved.kernel_digest,
                      resolved.initramfs_digest};
  // Hex digits are a UID whatever they are.
  return *api::SandboxUid::Parse(Sha256(JsonText(shape)).substr(0, kUidDigits));
}

}  // namespace dormouse
