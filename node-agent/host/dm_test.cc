#include "node-agent/host/dm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node-agent/host/dm_ioctl.h"
#include "node-agent/host/inventory.h"

namespace dormouse::host {
namespace {

using State = SnapshotStatus::State;

TEST(DmTest, ReadsEveryStatusThatTheKernelWrites) {
  const auto valid = ParseSnapshotStatus("34816/1050624 152");
  ASSERT_TRUE(valid);
  EXPECT_EQ(valid->state, State::kValid);
  EXPECT_EQ(valid->used_sectors, 34816U);
  EXPECT_EQ(valid->total_sectors, 1050624U);
  EXPECT_EQ(valid->metadata_sectors, 152U);
  EXPECT_EQ(ParseSnapshotStatus("Invalid")->state, State::kInvalid);
  EXPECT_EQ(ParseSnapshotStatus("Overflow")->state, State::kOverflow);
  EXPECT_EQ(ParseSnapshotStatus("Merge failed")->state, State::kMergeFailed);
  EXPECT_EQ(ParseSnapshotStatus("Unknown")->state, State::kUnknown);
  for (const char* bad :
       {"", "16", "16/", "16/32", "16/32 ", "16/32 x", "16/32 8 9", "-1/2 3", "invalid"}) {
    EXPECT_FALSE(ParseSnapshotStatus(bad)) << bad;
  }
}

TEST(DmTest, NamesAreOursOrNone) {
  EXPECT_TRUE(DmName::Parse("dormouse-3f2a00112233-root"));
  EXPECT_EQ(DmName::RootOf("3f2a00112233").str(), "dormouse-3f2a00112233-root");
  EXPECT_EQ(DmName::OriginOf(std::string(64, 'a'), 4096).str(), "dormouse-base-aaaaaaaaaaaa-4096");
  for (const std::string bad :
       {"", "dormouse-", "vg0-root", "dormouse-../x", "dormouse-a b", "dormouse-A"}) {
    EXPECT_FALSE(DmName::Parse(bad)) << bad;
  }
  EXPECT_FALSE(DmName::Parse("dormouse-" + std::string(127, 'a')));
}

TEST(DmTest, TargetsSurviveTheBuffer) {
  DmRequest request("dormouse-x", "", 0);
  request.SetTargets({{0, 100, "linear", "7:0 0"}, {100, 50, "zero", ""}});
  EXPECT_EQ(request.header().target_count, 2U);
  EXPECT_EQ(request.header().version[0], 4U);
  // In a request `next` counts from each target, in an answer from the first; for the second they
  // agree.
  const auto targets = request.Targets();
  ASSERT_TRUE(targets);
  EXPECT_EQ((*targets)[0], (DmTarget{0, 100, "linear", "7:0 0"}));
  EXPECT_EQ((*targets)[1], (DmTarget{100, 50, "zero", ""}));
}

TEST(InventoryTest, FindsTheSandboxInAName) {
  EXPECT_EQ(ShortIdIn("dormouse-3f2a00112233-root"), "3f2a00112233");
  EXPECT_EQ(ShortIdIn("dormouse-3f2a00112233-store"), "3f2a00112233");
  EXPECT_EQ(ShortIdIn("dmv3f2a00112233"), "3f2a00112233");
  EXPECT_EQ(ShortIdIn("dormouse-base-3f2a00112233-4096"), "");
  EXPECT_EQ(ShortIdIn("dmv"), "");
  EXPECT_EQ(ShortIdIn("eth0"), "");
}

}  // namespace
}  // namespace dormouse::host
