#include "node-agent/disk/capacity.h"

#include <gtest/gtest.h>

namespace dormouse::disk {
namespace {

constexpr CapacityPolicy kPolicy{1000, 100, 300, 40};

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

using Names = std::vector<std::string>;

TEST(CapacityTest, TheFairShareIsAnEvenPartOfWhatIsTakenAndWhatIsLeft) {
  EXPECT_EQ(FairShare({{"a", 100}, {"b", 300}}, 200), 300U);
  EXPECT_EQ(FairShare({}, 200), 200U);
}

TEST(CapacityTest, WhoGrewMostStandsStillFirstAndEverybodyOnlyAtTheLast) {
  const std::vector<StoreSize> hog_and_two{{"a", 10}, {"hog", 900}, {"b", 20}};
  const std::vector<StoreSize> three_beyond{{"a", 10},   {"h1", 700}, {"h2", 900},
                                            {"h3", 800}, {"b", 20},   {"c", 0}};
  const std::vector<StoreSize> alike{{"a", 100}, {"b", 100}};
  const Names none, hog{"hog"}, one{"h2"}, two{"h2", "h3"}, three{"h2", "h3", "h1"};
  const Names all_three{"hog", "b", "a"}, all_six{"h2", "h3", "h1", "b", "a", "c"};
  const struct {
    const char* what;
    std::vector<StoreSize> stores;
    uint64_t available;
    Names before, after;
  } cases[] = {
      {"room", hog_and_two, 100, none, none},
      {"the hog alone", hog_and_two, 99, none, hog},
      {"and it stays alone as the space falls", hog_and_two, 40, hog, hog},
      {"the last resort", hog_and_two, 39, hog, all_three},
      {"the last resort at once", hog_and_two, 0, none, all_three},
      {"a little more room changes nothing", hog_and_two, 239, all_three, all_three},
      {"the others go on first", hog_and_two, 240, all_three, hog},
      {"not yet", hog_and_two, 299, hog, hog},
      {"the hog goes on last", hog_and_two, 300, hog, none},
      {"all go on at once", hog_and_two, 5000, all_three, none},
      {"one of three", three_beyond, 99, none, one},
      {"two of three", three_beyond, 79, one, two},
      {"three of three", three_beyond, 59, two, three},
      {"still not the others", three_beyond, 40, three, three},
      {"but at the last", three_beyond, 39, three, all_six},
      {"in reverse: the others", three_beyond, 240, all_six, three},
      {"in reverse: the third", three_beyond, 260, three, two},
      {"in reverse: the second", three_beyond, 280, two, one},
      {"in reverse: the first", three_beyond, 300, one, none},
      {"none beyond its share: still one first", alike, 99, none, {"a"}},
      {"one that is gone is not counted", hog_and_two, 99, {"gone"}, hog},
      {"nobody runs", {}, 0, hog, none},
  };
  for (const auto& each : cases)
    EXPECT_EQ(WhoStandsStill(each.stores, each.available, kPolicy, each.before), each.after)
        << each.what;
}

}  // namespace
}  // namespace dormouse::disk
