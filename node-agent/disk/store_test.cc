#include "node-agent/disk/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node-agent/host/test_support.h"
#include "src/common/base/files.h"
#include "src/common/base/units.h"

namespace dormouse::disk {
namespace {

using host::ScratchDirectory;

constexpr uint64_t kSectorsPerMiB = kMiB / 512;

TEST(StoreTest, TheWorstCaseHasRoomForEveryChunkAndItsException) {
  // 256 exceptions of 16 bytes in an area of 4 KiB: header, 256 chunks, 1 area, and the one after
  // it.
  EXPECT_EQ(WorstCaseStoreBytes(kSectorsPerMiB), (1 + 256 + 1 + 1) * 4096U);
  EXPECT_EQ(WorstCaseStoreBytes(kSectorsPerMiB + 1), (1 + 257 + 2 + 1) * 4096U);
  EXPECT_EQ(WorstCaseStoreBytes(8), (1 + 1 + 1 + 1) * 4096U);
  EXPECT_EQ(WorstCaseStoreBytes(kSectorsPerMiB, 32), (1 + 64 + 1 + 1) * 16384U);
}

TEST(StoreTest, AllocatesAWindowAheadAndOnlyWhenHalfOfItIsUsed) {
  EXPECT_FALSE(NextAllocation(0, 64 * kMiB, 1024 * kMiB, 64 * kMiB));
  EXPECT_FALSE(NextAllocation(32 * kMiB, 64 * kMiB, 1024 * kMiB, 64 * kMiB));
  const auto next = NextAllocation(33 * kMiB, 64 * kMiB, 1024 * kMiB, 64 * kMiB);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->offset, 33 * kMiB);
  EXPECT_EQ(next->offset + next->length, 97 * kMiB);
  const auto last = NextAllocation(1000 * kMiB, 1001 * kMiB, 1024 * kMiB, 64 * kMiB);
  ASSERT_TRUE(last);
  EXPECT_EQ(last->offset + last->length, 1024 * kMiB) << "never beyond the store";
  EXPECT_FALSE(NextAllocation(1000 * kMiB, 1024 * kMiB, 1024 * kMiB, 64 * kMiB));
}

TEST(StoreTest, IsSparseButForItsWindowAndMadeOnce) {
  const ScratchDirectory scratch;
  const std::string file = scratch / "sandbox/store";
  ASSERT_OK(EnsureStore(file, 64 * kSectorsPerMiB, kMiB));
  EXPECT_EQ(host::SizeBytes(file).value(), WorstCaseStoreBytes(64 * kSectorsPerMiB));
  EXPECT_GE(host::AllocatedBytes(file).value(), kMiB);
  EXPECT_LT(host::AllocatedBytes(file).value(), 4 * kMiB);
  ASSERT_OK(EnsureStore(file, 64 * kSectorsPerMiB, kMiB));
  EXPECT_EQ(EnsureStore(file, 65 * kSectorsPerMiB, kMiB).error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(ListDirectory(scratch / "sandbox").value(), ::testing::ElementsAre("store"));
}

TEST(StoreTest, GrowsItsAllocationWithTheFillLevel) {
  const ScratchDirectory scratch;
  const std::string file = scratch / "store";
  ASSERT_OK(EnsureStore(file, 64 * kSectorsPerMiB, 4 * kMiB));
  EXPECT_EQ(AllocateAhead(file, kMiB, 4 * kMiB).value(), 0U);
  EXPECT_GE(AllocateAhead(file, 3 * kMiB, 4 * kMiB).value(), 2 * kMiB);
  EXPECT_GE(host::AllocatedBytes(file).value(), 7 * kMiB);
}

}  // namespace
}  // namespace dormouse::disk
