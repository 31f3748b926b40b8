#include "node-agent/sandbox/template_record.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/common/api/quantity.h"
#include "src/common/base/hash.h"
#include "src/common/base/sealed_json.h"
#include "src/common/base/time.h"

namespace dormouse {
namespace {

using nlohmann::json;

constexpr Seal kSeal{"template", TemplateRecord::kVersion};
constexpr size_t kUidDigits = 32;

WallTime ReadTime(const json& value) {
  const auto time = ParseTime(value.get<std::string>());
  if (!time) throw std::invalid_argument("time");
  return *time;
}

TemplateRecord FromJson(const json& object) {
  TemplateRecord record;
  record.cluster_id = object.at("clusterId");
  auto uid = api::SandboxUid::Parse(object.at("uid").get<std::string>());
  if (!uid) throw std::invalid_argument("uid");
  record.uid = std::move(*uid);
  record.ns = object.at("namespace");
  record.name = object.at("name");
  record.source_uid = object.at("sourceUid");
  record.captured_at = ReadTime(object.at("capturedAt"));
  record.has_workload = object.at("hasWorkload");
  record.image_name = object.at("image").at("name");
  record.image_digest = object.at("image").at("digest");
  record.image_bytes = object.at("image").at("bytes");
  record.disk_bytes = object.at("diskBytes");
  record.resources.vcpus = object.at("resources").at("vcpus");
  record.resources.memory_bytes = object.at("resources").at("memoryBytes");
  record.vmm_digest = object.at("digests").at("vmm");
  record.kernel_digest = object.at("digests").at("kernel");
  record.initramfs_digest = object.at("digests").at("initramfs");
  record.vmm_name = object.at("traits").at("vmm");
  record.vmm_version = object.at("traits").at("vmmVersion");
  record.cpu_model = object.at("traits").at("cpu");
  const json& figures = object.at("figures");
  record.figures = {figures.at("memoryBytes"), figures.at("writtenBytes"),
                    figures.at("pauseWindowMs"), figures.at("storeBytes")};
  record.retained = object.at("retained");
  if (!object.at("orphanedAt").is_null()) record.orphaned_at = ReadTime(object.at("orphanedAt"));
  return record;
}

}  // namespace

std::string EncodeTemplateRecord(const TemplateRecord& record) {
  return SealJson(
      kSeal,
      {{"clusterId", record.cluster_id},
       {"uid", record.uid.text()},
       {"namespace", record.ns},
       {"name", record.name},
       {"sourceUid", record.source_uid},
       {"capturedAt", FormatMicroTime(record.captured_at)},
       {"hasWorkload", record.has_workload},
       {"image",
        {{"name", record.image_name},
         {"digest", record.image_digest},
         {"bytes", record.image_bytes}}},
       {"diskBytes", record.disk_bytes},
       {"resources",
        {{"vcpus", record.resources.vcpus}, {"memoryBytes", record.resources.memory_bytes}}},
       {"digests",
        {{"vmm", record.vmm_digest},
         {"kernel", record.kernel_digest},
         {"initramfs", record.initramfs_digest}}},
       {"traits",
        {{"vmm", record.vmm_name}, {"vmmVersion", record.vmm_version}, {"cpu", record.cpu_model}}},
       {"figures",
        {{"memoryBytes", record.figures.memory_bytes},
         {"writtenBytes", record.figures.written_bytes},
         {"pauseWindowMs", record.figures.pause_window_ms},
         {"storeBytes", record.figures.store_bytes}}},
       {"retained", record.retained},
       {"orphanedAt",
        record.orphaned_at ? json(FormatMicroTime(*record.orphaned_at)) : json(nullptr)}});
}

Result<TemplateRecord> DecodeTemplateRecord(std::string_view text) {
  TemplateRecord record;
  DORMOUSE_TRY(OpenSealedJson(kSeal, text, [&](const json& body) { record = FromJson(body); }));
  return record;
}

TemplateRecord TemplateOf(const Record& source) {
  TemplateRecord record;
  record.source_uid = source.uid.text();
  record.image_name = source.image_name;
  record.image_digest = source.image_digest;
  record.image_bytes = source.image_bytes;
  record.disk_bytes = source.disk_bytes;
  record.resources = source.resources;
  record.vmm_digest = source.vmm_digest;
  record.kernel_digest = source.kernel_digest;
  record.initramfs_digest = source.initramfs_digest;
  return record;
}

Record CloneOf(const TemplateRecord& source) {
  Record record;
  record.image_name = source.image_name;
  record.image_digest = source.image_digest;
  record.image_bytes = source.image_bytes;
  record.disk_bytes = source.disk_bytes;
  record.resources = source.resources;
  record.vmm_digest = source.vmm_digest;
  record.kernel_digest = source.kernel_digest;
  record.initramfs_digest = source.initramfs_digest;
  record.origin = Origin{source.uid, source.IsBootSnapshot(), source.has_workload};
  record.sleeping = 0;
  return record;
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

api::SandboxUid BootSnapshotUid(const Record& resolved, std::string_view ns,
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
  return *api::SandboxUid::Parse(
      Sha256(shape.dump(-1, ' ', false, json::error_handler_t::replace)).substr(0, kUidDigits));
}

}  // namespace dormouse
