#include "node-agent/machine/activity.h"

#include <gtest/gtest.h>

namespace dormouse {
namespace {

constexpr char kNetDev[] =
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop "
    "fifo "
    "colls carrier compressed\n"
    "    lo:     100       2    0    0    0     0          0         0      100       2    0    0  "
    "  0 "
    "    0       0          0\n"
    "dm0123:12345678901     30    0    0    0     0          0         0     4000      12    0    "
    "0    0 "
    "    0       0          0\n"
    "  cut:     100\n";

TEST(ActivityTest, PacketsOfALinkAreCountedBothWays) {
  const auto packets = PacketsByLink(kNetDev);
  EXPECT_EQ(packets, (std::map<std::string, uint64_t>{{"lo", 4}, {"dm0123", 42}}));
}

TEST(ActivityTest, CpuTimeIsWhatTheGroupHasUsed) {
  EXPECT_EQ(CpuTimeIn("usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"),
            std::chrono::microseconds(1500));
  EXPECT_EQ(CpuTimeIn("nr_periods 3\n"), std::nullopt);
  EXPECT_EQ(CpuTimeIn(""), std::nullopt);
}

}  // namespace
}  // namespace dormouse
