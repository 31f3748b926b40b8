#include "node-agent/machine/disk_guard.h"

#include <gtest/gtest.h>

#include <atomic>

#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"

namespace dormouse {
namespace {

TEST(DiskGuardTest, ActsOnceWhenTheRoomIsGoneAndNeverBefore) {
  const host::ScratchDirectory scratch;
  const uint64_t available = host::SpaceOf(scratch.path())->available_bytes;
  std::atomic<int> acted = 0;
  {
    const DiskGuard roomy(scratch.path(), 1, [&] { acted = 100; });
    const DiskGuard tight(scratch.path(), available * 2, [&] { ++acted; });
    EXPECT_TRUE(host::Eventually([&] { return acted.load() == 1; }));
  }
  EXPECT_EQ(acted.load(), 1);
}

}  // namespace
}  // namespace dormouse
