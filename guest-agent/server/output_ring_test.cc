#include "guest-agent/server/output_ring.h"

#include <gtest/gtest.h>

namespace dormouse::guest {
namespace {

std::string All(const OutputRing& ring, uint64_t from) {
  std::string out;
  for (uint64_t at = from;;) {
    const auto slice = ring.Read(at, 3);
    if (slice.bytes.empty()) return out;
    out += slice.bytes;
    at = slice.position + slice.bytes.size();
  }
}

TEST(OutputRingTest, KeepsTheLastBytesInOrderForEveryWayToAppendThem) {
  const std::string text = "abcdefghijklmnopqrstuvwxyz0123456789";
  for (size_t step = 1; step <= text.size(); ++step) {
    OutputRing ring(10);
    for (size_t at = 0; at < text.size(); at += step)
      ring.Append(std::string_view(text).substr(at, step));
    EXPECT_EQ(All(ring, 0), text.substr(text.size() - 10)) << step;
    EXPECT_EQ(ring.end(), text.size());
    EXPECT_EQ(All(ring, text.size() - 4), "6789");
    EXPECT_EQ(ring.Read(0, 1).position, text.size() - 10);
  }
}

TEST(OutputRingTest, AShortStreamIsKeptWhole) {
  OutputRing ring(10);
  EXPECT_EQ(All(ring, 0), "");
  EXPECT_EQ(All(ring, 99), "");
  ring.Append("abc");
  EXPECT_EQ(All(ring, 0), "abc");
  EXPECT_EQ(ring.begin(), 0U);
}

}  // namespace
}  // namespace dormouse::guest
