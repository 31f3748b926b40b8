#include "src/common/api/quantity.h"

#include <gtest/gtest.h>

namespace dormouse::api {
namespace {

TEST(QuantityTest, ReadsEveryFormThatKubernetesWrites) {
  EXPECT_EQ(ParseBytes("0"), 0);
  EXPECT_EQ(ParseBytes("512Mi"), 512LL << 20);
  EXPECT_EQ(ParseBytes("1.5Gi"), 3LL << 29);
  EXPECT_EQ(ParseBytes("+2k"), 2000);
  EXPECT_EQ(ParseBytes("1e3"), 1000);
  EXPECT_EQ(ParseBytes("1E"), 1'000'000'000'000'000'000);
  EXPECT_EQ(ParseBytes("3Ei"), 3LL << 60);
  EXPECT_EQ(ParseBytes(".5Ki"), 512);
  EXPECT_EQ(ParseBytes("5."), 5);
}

TEST(QuantityTest, RoundsUpToWholeBytes) {
  EXPECT_EQ(ParseBytes("1500m"), 2);
  EXPECT_EQ(ParseBytes("1n"), 1);
  EXPECT_EQ(ParseBytes("0.0001"), 1);
  EXPECT_EQ(ParseBytes("2000m"), 2);
}

TEST(QuantityTest, ReadsAsManyDigitsAsAreWritten) {
  EXPECT_EQ(ParseBytes("00000000000000000000000512Mi"), 512LL << 20);
  EXPECT_EQ(ParseBytes("+17592186044416.418615e-3"), 17592186045);
  EXPECT_EQ(ParseBytes("86261218.000000000001Ki"), 86261218LL * 1024 + 1);
  EXPECT_EQ(ParseBytes("0.00000000000000000000000000000001Ei"), 1);
  EXPECT_EQ(ParseBytes("512.00000000000000000000000Mi"), 512LL << 20);
  EXPECT_EQ(ParseBytes("1e-30"), 1);
  EXPECT_EQ(ParseBytes("0e30"), 0);
  EXPECT_EQ(ParseBytes(std::string(100, '0')), std::nullopt);
  EXPECT_TRUE(ParseQuantity("1.5")->rounded_up);
  EXPECT_FALSE(ParseQuantity("1.0")->rounded_up);
}

TEST(QuantityTest, RefusesWhatIsNoAmountOfBytes) {
  for (const char* text : {"", "Mi", "-1", "1 Mi", "1MI", "1Mib", "0x10", "1e", "1e99", "1..2",
                           "5Ei", "NaN", "99999999999999999999", "+-1"}) {
    EXPECT_EQ(ParseBytes(text), std::nullopt) << text;
  }
}

TEST(QuantityTest, WritesTheShortestExactForm) {
  EXPECT_EQ(FormatBytes(0), "0");
  EXPECT_EQ(FormatBytes(536870912), "512Mi");
  EXPECT_EQ(FormatBytes(1000), "1000");
  EXPECT_EQ(FormatBytes(3LL << 29), "1536Mi");
  EXPECT_EQ(FormatBytes(1LL << 60), "1Ei");
}

}  // namespace
}  // namespace dormouse::api
