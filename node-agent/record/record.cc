#include "node-agent/record/record.h"

#include <nlohmann/json.hpp>

#include "node-agent/record/record_json.h"
#include "src/common/base/sealed_json.h"
#include "src/common/base/time.h"

namespace dormouse {
namespace {

using nlohmann::json;

constexpr Seal kRecordSeal{"record", Record::kVersion};

Intent ReadIntent(const std::string& name) {
  for (const Intent intent :
       {Intent::kRun, Intent::kSuspended, Intent::kStopped, Intent::kRelease}) {
    if (name == IntentName(intent)) return intent;
  }
  throw std::invalid_argument("intent");
}

template <typename Integer>
json NumberOrNull(const std::optional<Integer>& number) {
  return number ? json(*number) : json(nullptr);
}

template <typename Integer = uint64_t>
std::optional<Integer> ReadNumber(const json& object, const char* key) {
  const json& value = object.at(key);
  return value.is_null() ? std::optional<Integer>() : value.get<Integer>();
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

json ToJson(const Record& record) {
  json object = {
      {"clusterId", record.cluster_id},
      {"uid", record.uid.text()},
      {"namespace", record.ns},
      {"name", record.name},
      {"slot", record.slot},
      {"intent", IntentName(record.intent)},
      {"stopped", record.stopped},
      {"restartedAt", TimeOrNull(record.restarted_at)},
      {"incarnation", record.incarnation},
      {"vmm", nullptr},
      {"restartCount", record.restart_count},
      {"ending", record.ending ? EndingToJson(*record.ending) : json(nullptr)},
      {"startedAt", TimeOrNull(record.started_at)},
      {"wasReady", record.was_ready},
      {"bootToReadyMs", record.boot_to_ready_ms ? json(*record.boot_to_ready_ms) : json(nullptr)},
      {"notBefore", TimeOrNull(record.not_before)},
      {"orphanedAt", TimeOrNull(record.orphaned_at)},
      {"generations", record.generations},
      {"sleeping", NumberOrNull(record.sleeping)},
      {"memoryGeneration", NumberOrNull(record.memory_generation)},
      {"suspendedAt", TimeOrNull(record.suspended_at)},
      {"wakeAttempts", record.wake_attempts},
      {"wakeRefused", NumberOrNull(record.wake_refused)},
      {"capture", record.capture ? FiguresToJson(*record.capture) : json(nullptr)},
      {"origin", nullptr},
      {"captureFor", nullptr},
      {"diskBootSpent", record.disk_boot_spent},
  };
  object.update(ShapeToJson(record));
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

Record RecordFromJson(const json& object) {
  Record record;
  record.cluster_id = object.at("clusterId");
  record.uid = ReadUid(object, "uid");
  record.ns = object.at("namespace");
  record.name = object.at("name");
  static_cast<Shape&>(record) = ReadShape(object);
  record.slot = object.at("slot");
  record.intent = ReadIntent(object.at("intent"));
  record.stopped = object.value("stopped", false);
  if (object.contains("restartedAt")) record.restarted_at = ReadTime(object, "restartedAt");
  record.incarnation = object.at("incarnation");
  if (const json& vmm = object.at("vmm"); !vmm.is_null()) {
    record.vmm = ProcessHint{vmm.at("pid"), vmm.at("startTime"), vmm.at("bootId")};
  }
  record.restart_count = object.at("restartCount");
  if (!object.at("ending").is_null()) record.ending = ReadEnding(object.at("ending"));
  record.started_at = ReadTime(object, "startedAt");
  record.was_ready = object.value("wasReady", record.started_at.has_value());
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
  if (json capture = object.at("capture"); !capture.is_null()) {
    capture.emplace("storeBytes", 0);  // unknown to agents that had no templates
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
  if (object.contains("wakeRefused"))
    record.wake_refused = ReadNumber<int64_t>(object, "wakeRefused");
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
  json now = ToJson(record);
  if (!record.unknown.empty()) {
    const json read = json::parse(record.unknown);
    KeepUnknown(read, ToJson(RecordFromJson(read)), &now);
  }
  return SealJson(kRecordSeal, now);
}

std::optional<uint32_t> SlotIn(std::string_view text) {
  const json whole = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const json::json_pointer at("/" + std::string(kRecordSeal.name) + "/slot");
  if (!whole.is_object() || !whole.contains(at) || !whole[at].is_number_unsigned())
    return std::nullopt;
  return whole[at].get<uint32_t>();
}

Result<Record> DecodeRecord(std::string_view text) {
  Record record;
  DORMOUSE_TRY(OpenSealedJson(kRecordSeal, text, [&](const json& body) {
    record = RecordFromJson(body);
    json read = body;
    read.erase("cell");  // an earlier version's, about a VMM that no longer runs
    record.unknown = UnknownIn(read, ToJson(record));
  }));
  return record;
}

}  // namespace dormouse
