// Conditions, after KEP-1623. Plain values; not synchronised.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/clock.h"

namespace dormouse::api {

enum class ConditionStatus { kTrue, kFalse, kUnknown };

struct Condition {
  std::string type;
  ConditionStatus status = ConditionStatus::kUnknown;
  std::string reason;   ///< one of reasons.h
  std::string message;  ///< for people; at most 1,024 characters are sent
  int64_t observed_generation = 0;
  WallTime last_transition{};
  bool operator==(const Condition&) const = default;
};

using Conditions = std::vector<Condition>;

[[nodiscard]] const Condition* FindCondition(const Conditions& conditions, std::string_view type);
[[nodiscard]] bool IsTrue(const Conditions& conditions, std::string_view type);

/// Sets or replaces the condition of `next.type`. Its last_transition becomes `now` only when the
/// status differs from before.
void SetCondition(Conditions* conditions, Condition next, WallTime now);

[[nodiscard]] Conditions ParseConditions(const nlohmann::json& list);
[[nodiscard]] nlohmann::json ConditionsToJson(const Conditions& conditions);

}  // namespace dormouse::api
