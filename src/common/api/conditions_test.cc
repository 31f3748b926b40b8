#include "src/common/api/conditions.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace dormouse::api {
namespace {

using namespace std::chrono_literals;

TEST(ConditionsTest, TransitionTimeMovesOnlyWithTheStatus) {
  const WallTime start{1000s};
  Conditions conditions;
  SetCondition(&conditions, {"Ready", ConditionStatus::kFalse, "Starting", "a", 1, {}}, start);
  SetCondition(&conditions, {"Ready", ConditionStatus::kFalse, "NoCapacity", "b", 2, {}},
               start + 5s);
  ASSERT_EQ(conditions.size(), 1U);
  EXPECT_EQ(conditions[0].last_transition, start);
  EXPECT_EQ(conditions[0].reason, "NoCapacity");
  EXPECT_EQ(conditions[0].observed_generation, 2);
  SetCondition(&conditions, {"Ready", ConditionStatus::kTrue, "Ready", "", 2, {}}, start + 9s);
  EXPECT_EQ(conditions[0].last_transition, start + 9s);
  EXPECT_TRUE(IsTrue(conditions, "Ready"));
  EXPECT_FALSE(IsTrue(conditions, "Scheduled"));
}

TEST(ConditionsTest, WhatIsWrittenIsReadBack) {
  Conditions conditions;
  SetCondition(&conditions, {"Ready", ConditionStatus::kUnknown, "NodeLost", "gone", 7, {}},
               WallTime{1000s});
  SetCondition(&conditions, {"Released", ConditionStatus::kTrue, "Released", "", 0, {}},
               WallTime{2000s});
  EXPECT_EQ(ParseConditions(ConditionsToJson(conditions)), conditions);
}

TEST(ConditionsTest, ALongMessageIsCutBetweenCharacters) {
  Conditions conditions;
  SetCondition(&conditions,
               {"Ready", ConditionStatus::kFalse, "HostError", std::string(1023, 'x') + "ä", 1, {}},
               WallTime{});
  EXPECT_EQ(ConditionsToJson(conditions)[0]["message"], std::string(1023, 'x'));
}

TEST(ConditionsTest, WhatIsNoConditionIsLeftOut) {
  const auto list =
      nlohmann::json::parse(R"([1, {"status":"True"}, {"type":"Ready","status":"Maybe"}])");
  const Conditions conditions = ParseConditions(list);
  ASSERT_EQ(conditions.size(), 1U);
  EXPECT_EQ(conditions[0].status, ConditionStatus::kUnknown);
}

}  // namespace
}  // namespace dormouse::api
