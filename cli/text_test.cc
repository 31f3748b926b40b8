#include "cli/text.h"

#include <gtest/gtest.h>

namespace dormouse::cli {
namespace {

using namespace std::chrono_literals;

TEST(TextTest, AnAmountHasThreeDigitsAtMostAndAUnit) {
  EXPECT_EQ(Amount(0), "0 B");
  EXPECT_EQ(Amount(1023), "1023 B");
  EXPECT_EQ(Amount(1024), "1 KiB");
  EXPECT_EQ(Amount(2'202'010), "2.1 MiB");
  EXPECT_EQ(Amount(512LL << 20), "512 MiB");
  EXPECT_EQ(Amount(3LL << 41), "6 TiB");
}

TEST(TextTest, ATimeIsAsPreciseAsItIsShort) {
  EXPECT_EQ(Elapsed(-1s), "0.0s");
  EXPECT_EQ(Elapsed(449ms), "0.4s");
  EXPECT_EQ(Elapsed(12900ms), "12s");
  EXPECT_EQ(Elapsed(65s), "1m05s");
  EXPECT_EQ(Elapsed(62min), "1h02m");
}

TEST(TextTest, WhatAGuestSaysCannotDriveTheTerminal) {
  EXPECT_EQ(OneLine("a\x1b[2Jb\r\nc"), "a [2Jb  c");
  EXPECT_EQ(OneLine("csi \xC2\x9B"
                    "2J"),
            "csi  2J");
  EXPECT_EQ(OneLine("gr\xC3\xBC\xC3\x9F"), "gr\xC3\xBC\xC3\x9F");
  EXPECT_EQ(OneLine("torn \xC3"), "torn ?");
  EXPECT_EQ(OneLine("\xFF\x80"), "??");
}

TEST(TextTest, ALineIsCutBetweenCharacters) {
  EXPECT_EQ(Shortened("abc", 3), "abc");
  EXPECT_EQ(Shortened("abcd", 3), "ab…");
  EXPECT_EQ(Shortened("äöüß", 3), "äö…");
  EXPECT_EQ(Shortened("abc", 1), "…");
  EXPECT_EQ(Shortened("abc", 0), "");
}

}  // namespace
}  // namespace dormouse::cli
