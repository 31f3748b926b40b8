#include "node-agent/sandbox/record.h"

#include <nlohmann/json.hpp>

#include "src/common/base/sealed_json.h"
#include "src/common/base/time.h"

namespace dormouse {
namespace {

using nlohmann::json;

constexpr Seal kSeal{"record", Record::kVersion};

json TimeOrNull(const std::optional<WallTime>& time) {
  return time ? json(FormatMicroTime(*time)) : json(nullptr);
}

std::optional<WallTime> ReadTime(const json& object, const char* key) {
  const json& value = object.at(key);
  if (value.is_null()) return std::nullopt;
  const auto time = ParseTime(value.get<std::string>());
  if (!time) throw std::invalid_argument(key);
  return time;
}

Intent ReadIntent(const std::string& name) {
  for (const Intent intent :
       {Intent::kRun, Intent::kSuspended, Intent::kStopped, Intent::kRelease}) {
    if (name == IntentName(intent)) return intent;
  }
  throw std::invalid_argument("intent");
}

json NumberOrNull(const std::optional<uint64_t>& number) {
  return number ? json(*number) : json(nullptr);
}

std::optional<uint64_t> ReadNumber(const json& object, const char* key) {
  const json& value = object.at(key);
  return value.is_null() ? std::optional<uint64_t>() : value.get<uint64_t>();
}

json EndingToJson(const Ending& ending) {
  return {{"reason", ending.reason},
          {"message", ending.message},
          {"success", ending.success},
          {"exitCode", ending.exit_code ? json(*ending.exit_code) : json(nullptr)},
          {"at", FormatMicroTime(ending.at)}};
}

Ending ReadEnding(const json& object) {
  Ending ending;
  ending.reason = object.at("reason");
  ending.message = object.at("message");
  ending.success = object.at("success");
  if (!object.at("exitCode").is_null()) ending.exit_code = object.at("exitCode").get<int>();
  ending.at = ReadTime(object, "at").value_or(WallTime{});
  return ending;
}

json FiguresToJson(const CaptureFigures& figures) {
  return {{"memoryBytes", figures.memory_bytes},
          {"writtenBytes", figures.written_bytes},
          {"pauseWindowMs", figures.pause_window_ms},
          {"storeBytes", figures.store_bytes}};
}

CaptureFigures ReadFigures(const json& object) {
  return {object.at("memoryBytes"), object.at("writtenBytes"), object.at("pauseWindowMs"),
          object.value("storeBytes", int64_t{0})};
}

api::SandboxUid ReadUid(const json& object, const char* key) {
  auto uid = api::SandboxUid::Parse(object.at(key).get<std::string>());
  if (!uid) throw std::invalid_argument(key);
  return std::move(*uid);
}

json ToJson(const Record& record) {
  json object = {
      {"clusterId", record.cluster_id},
      {"uid", record.uid.text()},
      {"namespace", record.ns},
      {"name", record.name},
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
      {"slot", record.slot},
      {"intent", IntentName(record.intent)},
      {"incarnation", record.incarnation},
      {"vmm", nullptr},
      {"restartCount", record.restart_count},
      {"ending", record.ending ? EndingToJson(*record.ending) : json(nullptr)},
      {"startedAt", TimeOrNull(record.started_at)},
      {"bootToReadyMs", record.boot_to_ready_ms ? json(*record.boot_to_ready_ms) : json(nullptr)},
      {"notBefore", TimeOrNull(record.not_before)},
      {"orphanedAt", TimeOrNull(record.orphaned_at)},
      {"generations", record.generations},
      {"sleeping", NumberOrNull(record.sleeping)},
      {"memoryGeneration", NumberOrNull(record.memory_generation)},
      {"suspendedAt", TimeOrNull(record.suspended_at)},
      {"wakeAttempts", record.wake_attempts},
      {"capture", record.capture ? FiguresToJson(*record.capture) : json(nullptr)},
      {"origin", nullptr},
      {"captureFor", nullptr},
      {"diskBootSpent", record.disk_boot_spent},
  };
  if (record.origin) {
    object["origin"] = {{"template", record.origin->template_uid.text()},
                        {"bootSnapshot", record.origin->boot_snapshot},
                        {"hasWorkload", record.origin->has_workload}};
  }
  if (record.capture_for) {
    object["captureFor"] = {{"template", record.capture_for->template_uid.text()},
                            {"bootSnapshot", record.capture_for->boot_snapshot},
                            {"figures", FiguresToJson(record.capture_for->figures)}};
  }
  if (record.vmm) {
    object["vmm"] = {{"pid", record.vmm->pid},
                     {"startTime", record.vmm->start_time_ticks},
                     {"bootId", record.vmm->boot_id}};
  }
  return object;
}

Record FromJson(const json& object) {
  Record record;
  record.cluster_id = object.at("clusterId");
  record.uid = ReadUid(object, "uid");
  record.ns = object.at("namespace");
  record.name = object.at("name");
  record.image_name = object.at("image").at("name");
  record.image_digest = object.at("image").at("digest");
  record.image_bytes = object.at("image").at("bytes");
  record.disk_bytes = object.at("diskBytes");
  record.resources.vcpus = object.at("resources").at("vcpus");
  record.resources.memory_bytes = object.at("resources").at("memoryBytes");
  record.vmm_digest = object.at("digests").at("vmm");
  record.kernel_digest = object.at("digests").at("kernel");
  record.initramfs_digest = object.at("digests").at("initramfs");
  record.slot = object.at("slot");
  record.intent = ReadIntent(object.at("intent"));
  record.incarnation = object.at("incarnation");
  if (const json& vmm = object.at("vmm"); !vmm.is_null()) {
    record.vmm = ProcessHint{vmm.at("pid"), vmm.at("startTime"), vmm.at("bootId")};
  }
  record.restart_count = object.at("restartCount");
  if (!object.at("ending").is_null()) record.ending = ReadEnding(object.at("ending"));
  record.started_at = ReadTime(object, "startedAt");
  if (!object.at("bootToReadyMs").is_null())
    record.boot_to_ready_ms = object.at("bootToReadyMs").get<int64_t>();
  record.not_before = ReadTime(object, "notBefore");
  record.orphaned_at = ReadTime(object, "orphanedAt");
  if (!object.contains("generations")) return record;  // written by 0.1, which could not suspend
  record.generations = object.at("generations");
  record.sleeping = ReadNumber(object, "sleeping");
  record.memory_generation = ReadNumber(object, "memoryGeneration");
  record.suspended_at = ReadTime(object, "suspendedAt");
  record.wake_attempts = object.at("wakeAttempts");
  if (const json& capture = object.at("capture"); !capture.is_null()) {
    record.capture = ReadFigures(capture);
  }
  if (!object.contains("origin")) return record;  // written before there were clones
  if (const json& origin = object.at("origin"); !origin.is_null()) {
    record.origin =
        Origin{ReadUid(origin, "template"), origin.at("bootSnapshot"), origin.at("hasWorkload")};
  }
  if (const json& capture = object.at("captureFor"); !capture.is_null()) {
    record.capture_for = TemplateCapture{ReadUid(capture, "template"), capture.at("bootSnapshot"),
                                         ReadFigures(capture.at("figures"))};
  }
  record.disk_boot_spent = object.value("diskBootSpent", false);
  return record;
}

}  // namespace

std::string_view IntentName(Intent intent) {
  switch (intent) {
    case Intent::kRun:
      return "Run";
    case Intent::kSuspended:
      return "Suspended";
    case Intent::kStopped:
      return "Stopped";
    case Intent::kRelease:
      return "Release";
  }
  return "Run";
}

std::string EncodeRecord(const Record& record) {
  return SealJson(kSeal, ToJson(record));
}

Result<Record> DecodeRecord(std::string_view text) {
  Record record;
  DORMOUSE_TRY(OpenSealedJson(kSeal, text, [&](const json& body) { record = FromJson(body); }));
  return record;
}

}  // namespace dormouse
