#include "node-agent/disk/capacity.h"

#include <gtest/gtest.h>

namespace dormouse::disk {
namespace {

constexpr CapacityPolicy kPolicy{1000, 100, 300};

DiskPressure Pressure(uint64_t available, DiskPressure before) {
  return PressureOf({10000, available}, kPolicy, before);
}

TEST(CapacityTest, RefusesBeforeItPausesAndPausesBeforeItIsFull) {
  EXPECT_EQ(Pressure(1000, DiskPressure::kNone), DiskPressure::kNone);
  EXPECT_EQ(Pressure(999, DiskPressure::kNone), DiskPressure::kRefuseNew);
  EXPECT_EQ(Pressure(100, DiskPressure::kNone), DiskPressure::kRefuseNew);
  EXPECT_EQ(Pressure(99, DiskPressure::kNone), DiskPressure::kPauseGuests);
}

TEST(CapacityTest, PausedGuestsGoOnOnlyWhenThereIsRoomAgain) {
  EXPECT_EQ(Pressure(299, DiskPressure::kPauseGuests), DiskPressure::kPauseGuests);
  EXPECT_EQ(Pressure(300, DiskPressure::kPauseGuests), DiskPressure::kRefuseNew);
  EXPECT_EQ(Pressure(1000, DiskPressure::kPauseGuests), DiskPressure::kNone);
}

TEST(CapacityTest, AdmitsWhatFitsAboveTheReserve) {
  EXPECT_TRUE(Admits({10000, 1500}, kPolicy, 500));
  EXPECT_FALSE(Admits({10000, 1499}, kPolicy, 500));
  EXPECT_FALSE(Admits({10000, 900}, kPolicy, 0));
}

}  // namespace
}  // namespace dormouse::disk
