#include "node-agent/sandbox/wake_turns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace dormouse {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using namespace std::chrono_literals;

api::SandboxUid Uid(int number) {
  return *api::SandboxUid::Parse("0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a1" + std::to_string(number));
}

class WakeTurnsTest : public ::testing::Test {
 protected:
  FakeClock clock_;
  WakeTurns turns_{2, 10s, clock_};
};

TEST_F(WakeTurnsTest, SoManyAtOnceAndTheOthersInTheOrderInWhichTheyCame) {
  EXPECT_TRUE(turns_.Take(Uid(1)));
  EXPECT_TRUE(turns_.Take(Uid(2)));
  EXPECT_TRUE(turns_.Take(Uid(1))) << "it is still its turn";
  EXPECT_FALSE(turns_.Take(Uid(3)));
  EXPECT_FALSE(turns_.Take(Uid(4)));
  EXPECT_FALSE(turns_.Take(Uid(3)));
  EXPECT_THAT(turns_.Leave(Uid(2)), ElementsAre(Uid(3)));
  EXPECT_FALSE(turns_.Take(Uid(5))) << "one that comes now passes nobody";
  EXPECT_FALSE(turns_.Take(Uid(4)));
  EXPECT_TRUE(turns_.Take(Uid(3)));
  EXPECT_THAT(turns_.Leave(Uid(1)), ElementsAre(Uid(4)));
}

TEST_F(WakeTurnsTest, ThoseInLineAreCounted) {
  const auto counted = [] {
    return metrics::Registry::Default().MakeGauge("dormouse_wakes_in_line", "").Value();
  };
  for (int number = 1; number <= 4; ++number) turns_.Take(Uid(number));
  EXPECT_EQ(counted(), 2);
  turns_.Leave(Uid(1));
  EXPECT_TRUE(turns_.Take(Uid(3)));
  EXPECT_EQ(counted(), 1);
  turns_.Leave(Uid(4));
  EXPECT_EQ(counted(), 0);
}

TEST_F(WakeTurnsTest, OneThatGivesUpItsPlaceLetsTheNextIn) {
  EXPECT_TRUE(turns_.Take(Uid(1)));
  EXPECT_TRUE(turns_.Take(Uid(2)));
  EXPECT_FALSE(turns_.Take(Uid(3)));
  EXPECT_FALSE(turns_.Take(Uid(4)));
  EXPECT_THAT(turns_.Leave(Uid(1)), ElementsAre(Uid(3)));
  EXPECT_THAT(turns_.Leave(Uid(3)), ElementsAre(Uid(4)));
  EXPECT_TRUE(turns_.Take(Uid(4)));
}

TEST_F(WakeTurnsTest, OneThatNeverWakesKeepsNobodyWaiting) {
  EXPECT_TRUE(turns_.Take(Uid(1)));
  EXPECT_TRUE(turns_.Take(Uid(2)));
  EXPECT_FALSE(turns_.Take(Uid(3)));
  clock_.Advance(10s);
  EXPECT_TRUE(turns_.Take(Uid(3)));
  EXPECT_THAT(turns_.Leave(Uid(7)), IsEmpty()) << "it had no turn";
}

TEST(WakeTurnsWithoutABoundTest, NobodyWaits) {
  const FakeClock clock;
  WakeTurns turns(0, 10s, clock);
  for (int i = 0; i < 9; ++i) EXPECT_TRUE(turns.Take(Uid(i)));
}

}  // namespace
}  // namespace dormouse
