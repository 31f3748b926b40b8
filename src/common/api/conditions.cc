#include "src/common/api/conditions.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/common/base/time.h"

namespace dormouse::api {
namespace {

using nlohmann::json;

constexpr size_t kLongestMessage = 1024;

ConditionStatus ParseStatus(std::string_view text) {
  if (text == "True") return ConditionStatus::kTrue;
  if (text == "False") return ConditionStatus::kFalse;
  return ConditionStatus::kUnknown;
}

const char* StatusText(ConditionStatus status) {
  switch (status) {
    case ConditionStatus::kTrue:
      return "True";
    case ConditionStatus::kFalse:
      return "False";
    case ConditionStatus::kUnknown:
      break;
  }
  return "Unknown";
}

std::string Text(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

/// Cut so that no UTF-8 character is torn: the API server refuses what is not UTF-8.
std::string Shortened(const std::string& message) {
  if (message.size() <= kLongestMessage) return message;
  size_t end = kLongestMessage;
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0U) == 0x80U) --end;
  return message.substr(0, end);
}

}  // namespace

const Condition* FindCondition(const Conditions& conditions, std::string_view type) {
  const auto found =
      std::find_if(conditions.begin(), conditions.end(),
                   [type](const Condition& condition) { return condition.type == type; });
  return found == conditions.end() ? nullptr : &*found;
}

bool IsTrue(const Conditions& conditions, std::string_view type) {
  const Condition* condition = FindCondition(conditions, type);
  return condition != nullptr && condition->status == ConditionStatus::kTrue;
}

void SetCondition(Conditions* conditions, Condition next, WallTime now) {
  for (Condition& present : *conditions) {
    if (present.type != next.type) continue;
    next.last_transition = present.status == next.status ? present.last_transition : now;
    present = std::move(next);
    return;
  }
  next.last_transition = now;
  conditions->push_back(std::move(next));
}

Conditions ParseConditions(const json& list) {
  Conditions conditions;
  if (!list.is_array()) return conditions;
  for (const json& entry : list) {
    if (!entry.is_object()) continue;
    Condition condition;
    condition.type = Text(entry, "type");
    if (condition.type.empty()) continue;
    condition.status = ParseStatus(Text(entry, "status"));
    condition.reason = Text(entry, "reason");
    condition.message = Text(entry, "message");
    if (const auto generation = entry.find("observedGeneration");
        generation != entry.end() && generation->is_number_integer()) {
      condition.observed_generation = generation->get<int64_t>();
    }
    if (const auto time = ParseTime(Text(entry, "lastTransitionTime")))
      condition.last_transition = *time;
    conditions.push_back(std::move(condition));
  }
  return conditions;
}

json ConditionsToJson(const Conditions& conditions) {
  json list = json::array();
  for (const Condition& condition : conditions) {
    json entry = {{"type", condition.type},
                  {"status", StatusText(condition.status)},
                  {"reason", condition.reason},
                  {"message", Shortened(condition.message)},
                  {"lastTransitionTime", FormatTime(condition.last_transition)}};
    if (condition.observed_generation > 0)
      entry["observedGeneration"] = condition.observed_generation;
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace dormouse::api
