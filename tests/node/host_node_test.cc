// The host and disk rooms on a real kernel: device-mapper, loops, a file system with holes. What
// fake_block keeps of the kernel's rules is shown here to be the kernel's.
//
// Needs root and device-mapper; skips with the reason otherwise. The state is made below
// $DORMOUSE_TEST_DIR, /var/lib/dormouse where that is there, else /tmp.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "node-agent/disk/root_disk.h"
#include "node-agent/host/dm.h"
#include "node-agent/host/inventory.h"
#include "node-agent/host/loop.h"
#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/hash.h"
#include "src/common/base/units.h"

namespace dormouse::test {
namespace {

using namespace disk;  // NOLINT: a test of two rooms
using namespace host;  // NOLINT

constexpr uint64_t kBaseBytes = 16 * kMiB;
constexpr uint64_t kDiskBytes = 64 * kMiB;

// A block of a pattern that tells its number.
std::string Block(uint64_t number) {
  std::string block(4096, static_cast<char>('a' + number % 23));
  block.replace(0, 8, std::to_string(10000000 + number).substr(0, 8));
  return block;
}

class HostNodeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!IsRoot()) GTEST_SKIP() << "needs root";
    failpoint::DisarmAll();
    auto dm = OpenDeviceMapper("/dev/dormouse-test");
    if (!dm) GTEST_SKIP() << dm.error().message();
    dm_ = *std::move(dm);
    loops_ = OpenLoopDevices("/dev/dormouse-test").value();
    bases_ = std::make_unique<BaseDevices>(*dm_, *loops_, scratch_ / "bases");
    disks_ = std::make_unique<RootDisks>(*dm_, *loops_, *bases_);
    MakeBase();
  }
  void TearDown() override {
    failpoint::DisarmAll();
    if (!disks_) return;
    for (const auto& id : {one_, two_}) EXPECT_OK(Remove(id));
    EXPECT_OK(bases_->Unpin(base_.digest));
    EXPECT_THAT(Ours(), ::testing::IsEmpty()) << "leaked";
    EXPECT_OK(RemoveTree("/dev/dormouse-test"));
  }
  void MakeBase() {
    auto file = OpenFile(scratch_ / "base.img", O_RDWR | O_CREAT);
    ASSERT_OK(file);
    ASSERT_EQ(::ftruncate(file->get(), kBaseBytes), 0);
    for (uint64_t number = 0; number < 64; ++number) WriteBlock(file->get(), number);
    const auto digest = Sha256OfFile(scratch_ / "base.img");
    ASSERT_OK(digest);
    const auto base = bases_->Pin({"base", scratch_ / "base.img", kBaseBytes, *digest, ""});
    ASSERT_OK(base);
    base_ = *base;
  }
  static void WriteBlock(int file, uint64_t number) {
    const std::string block = Block(number);
    ASSERT_EQ(::pwrite(file, block.data(), block.size(), static_cast<off_t>(number * 4096)), 4096);
  }
  static std::string ReadBlock(int file, uint64_t number) {
    std::string block(4096, '\0');
    EXPECT_EQ(::pread(file, block.data(), block.size(), static_cast<off_t>(number * 4096)), 4096);
    return block;
  }
  RootDiskSpec Spec(const std::string& id) {
    return {id, "default/" + id, base_, kDiskBytes, scratch_ / (id + "/store"), 4 * kMiB};
  }
  // Devices go, and the store with them.
  Result<> Remove(const std::string& id) {
    DORMOUSE_TRY(disks_->Release(id));
    return RemoveFile(Spec(id).store_file);
  }
  bool IsReady(const std::string& id) {
    const auto device = dm_->Find(DmName::RootOf(id));
    return device && device->active && !device->suspended && disks_->Usage(Spec(id))->valid;
  }
  UniqueFd OpenDisk(const std::string& id, int flags = O_RDWR) {
    const std::string node = "/dev/dormouse-test/" + id;
    EXPECT_OK(dm_->MakeNode(DmName::RootOf(id), node, 100017));
    return OpenFile(node, flags).value();
  }
  // Devices of this test's sandboxes and base.
  std::vector<std::string> Ours() {
    std::vector<std::string> names;
    const auto devices = dm_->List();
    const auto loops = loops_->List();
    for (const auto& device : *devices) names.push_back(device.name);
    for (const auto& loop : *loops) names.push_back(loop.tag);
    std::erase_if(names, [&](const std::string& name) {
      return name.find(one_) == std::string::npos && name.find(two_) == std::string::npos &&
             name.find(base_.digest.substr(0, 12)) == std::string::npos;
    });
    return names;
  }
  // Where a node keeps its sandboxes, as that file system is what counts.
  static const char* StateDirectory() {
    return PathExists("/var/lib/dormouse") ? "/var/lib/dormouse" : "/tmp";
  }

  ScratchDirectory scratch_{StateDirectory()};
  const std::string one_ = ShortId("host-node-test-1-" + std::to_string(::getpid()));
  const std::string two_ = ShortId("host-node-test-2-" + std::to_string(::getpid()));
  std::unique_ptr<DeviceMapper> dm_;
  std::unique_ptr<LoopDevices> loops_;
  std::unique_ptr<BaseDevices> bases_;
  std::unique_ptr<RootDisks> disks_;
  Base base_;
};

TEST_F(HostNodeTest, ADiskShowsTheBaseThenZerosAndKeepsWhatIsWritten) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  ASSERT_OK(disks_->Prepare(Spec(one_))) << "again: nothing changes";
  EXPECT_TRUE(IsReady(one_));
  {
    const UniqueFd device = OpenDisk(one_);
    EXPECT_EQ(::lseek(device.get(), 0, SEEK_END), static_cast<off_t>(kDiskBytes))
        << "larger than its base";
    EXPECT_EQ(ReadBlock(device.get(), 7), Block(7));
    EXPECT_EQ(ReadBlock(device.get(), kBaseBytes / 4096 + 1), std::string(4096, '\0'));
    WriteBlock(device.get(), kDiskBytes / 4096 - 1);
    WriteBlock(device.get(), 100);
    ASSERT_EQ(::fsync(device.get()), 0);
  }
  struct stat node {};
  ASSERT_EQ(::stat(("/dev/dormouse-test/" + one_).c_str(), &node), 0);
  EXPECT_EQ(node.st_uid, 100017U);
  EXPECT_EQ(node.st_mode & 07777, 0600U);
  ASSERT_OK(disks_->Release(one_));
  EXPECT_THAT(Ours(), ::testing::IsEmpty()) << "asleep it holds no device";
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  const UniqueFd device = OpenDisk(one_, O_RDONLY);
  EXPECT_EQ(ReadBlock(device.get(), 100), Block(100));
  EXPECT_EQ(ReadBlock(device.get(), kDiskBytes / 4096 - 1), Block(kDiskBytes / 4096 - 1));
}

TEST_F(HostNodeTest, NeighboursShareTheBaseAndNotTheirWrites) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  ASSERT_OK(disks_->Prepare(Spec(two_)));
  EXPECT_EQ(Ours().size(), 6U) << "one base loop, one origin, two store loops, two snapshots";
  {
    const UniqueFd first = OpenDisk(one_);
    ASSERT_EQ(::pwrite(first.get(), std::string(4096, 'X').data(), 4096, 0), 4096);
    ASSERT_EQ(::fsync(first.get()), 0);
    const UniqueFd second = OpenDisk(two_);
    EXPECT_EQ(ReadBlock(second.get(), 0), Block(0));
  }
  EXPECT_EQ(Sha256OfFile(base_.file).value(), base_.digest) << "nobody writes the base";
  ASSERT_OK(Remove(one_));
  EXPECT_TRUE(IsReady(two_));
  EXPECT_EQ(bases_->Unpin(base_.digest).error().code(), ErrorCode::kBusy);
}

TEST_F(HostNodeTest, AnOpenDiskIsBusyAndWholeUntilItsHolderIsGone) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  {
    const UniqueFd holder = OpenDisk(one_);
    EXPECT_EQ(Remove(one_).error().code(), ErrorCode::kBusy);
    EXPECT_EQ(dm_->Find(DmName::RootOf(one_))->open_count, 1U);
    EXPECT_TRUE(IsReady(one_));
  }
  EXPECT_OK(Remove(one_));
  EXPECT_EQ(dm_->Find(DmName::RootOf(one_)).error().code(), ErrorCode::kNotFound);
}

TEST_F(HostNodeTest, ANameIsNeverGivenAnotherTable) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  ASSERT_OK(disks_->Prepare(Spec(two_)));
  const auto origin = bases_->EnsureOrigin(base_, kDiskBytes);
  ASSERT_OK(origin);
  const SnapshotTable other{origin->number, loops_->FindByTag(StoreLoopTag(two_)).value()->number,
                            kDiskBytes / kSectorBytes, kChunkSectors};
  EXPECT_EQ(dm_->CreateSnapshot(DmName::RootOf(one_), other).error().code(),
            ErrorCode::kAlreadyExists);
  // And no two snapshots on one store.
  const auto name = DmName::Parse("dormouse-" + one_ + "-x");
  const auto second = dm_->CreateSnapshot(*name, other);
  EXPECT_FALSE(second);
  EXPECT_EQ(dm_->Find(*name).error().code(), ErrorCode::kNotFound)
      << "a failed create leaves nothing";
}

TEST_F(HostNodeTest, AFailureAtAnyStepHealsAndIsUndoneWhole) {
  for (const std::string step : {"base-loop", "origin", "store-file", "store-loop", "snapshot"}) {
    for (const std::string edge : {"", ".done"}) {
      ASSERT_OK(failpoint::Arm("disk." + step + edge + "@default/" + one_ + "=1*error(EIO)"));
      EXPECT_FALSE(disks_->Prepare(Spec(one_))) << step << edge;
      failpoint::DisarmAll();
      EXPECT_OK(disks_->Prepare(Spec(one_))) << step << edge;
      EXPECT_TRUE(IsReady(one_)) << step << edge;
      EXPECT_OK(Remove(one_)) << step << edge;
      EXPECT_THAT(Ours(), ::testing::IsEmpty()) << step << edge;
    }
  }
}

TEST_F(HostNodeTest, TheFillLevelIsSeenAndTheStoreGrowsAheadOfIt) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  const auto before = disks_->Usage(Spec(one_));
  ASSERT_OK(before);
  EXPECT_EQ(before->capacity_bytes, WorstCaseStoreBytes(kDiskBytes / kSectorBytes));
  {
    const UniqueFd device = OpenDisk(one_);
    for (uint64_t number = 0; number < 8 * kMiB / 4096; ++number) WriteBlock(device.get(), number);
    ASSERT_EQ(::fsync(device.get()), 0);
  }
  const auto after = disks_->KeepAhead(Spec(one_));
  ASSERT_OK(after);
  EXPECT_GE(after->used_bytes, 8 * kMiB);
  EXPECT_LT(after->used_bytes, 9 * kMiB);
  EXPECT_GE(AllocatedBytes(Spec(one_).store_file).value(), 12 * kMiB) << "a window of 4 MiB beyond";
}

TEST_F(HostNodeTest, EveryBlockCanDifferAndTheStoreIsNeverFull) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  {
    const UniqueFd device = OpenDisk(one_);
    for (uint64_t number = 0; number < kDiskBytes / 4096; ++number)
      WriteBlock(device.get(), number);
    ASSERT_EQ(::fsync(device.get()), 0);
  }
  EXPECT_TRUE(disks_->Usage(Spec(one_))->valid);
  ASSERT_OK(disks_->Release(one_));
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  const UniqueFd device = OpenDisk(one_, O_RDONLY);
  EXPECT_EQ(ReadBlock(device.get(), kDiskBytes / 4096 - 1), Block(kDiskBytes / 4096 - 1));
}

TEST_F(HostNodeTest, AStoreIsFrozenInOneInstantUnderALiveDisk) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  const UniqueFd device = OpenDisk(one_);
  WriteBlock(device.get(), 500);
  ASSERT_EQ(::fsync(device.get()), 0);
  ASSERT_OK(dm_->Suspend(DmName::RootOf(one_)));
  EXPECT_TRUE(dm_->Find(DmName::RootOf(one_))->suspended);
  ASSERT_OK(MakeDirectories(scratch_ / two_));
  const auto cloned = CloneFile(Spec(one_).store_file, Spec(two_).store_file);
  ASSERT_OK(dm_->Resume(DmName::RootOf(one_)));
  ASSERT_OK(cloned);
  WriteBlock(device.get(), 501);
  ASSERT_OK(disks_->Prepare(Spec(two_)));
  const UniqueFd clone = OpenDisk(two_, O_RDONLY);
  EXPECT_EQ(ReadBlock(clone.get(), 500), Block(500));
  EXPECT_EQ(ReadBlock(clone.get(), 501), std::string(4096, '\0')) << "written after the instant";
}

TEST_F(HostNodeTest, WhatIsThereIsListedByItsSandbox) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  InventorySources sources;
  sources.dm = dm_.get();
  sources.loops = loops_.get();
  const auto items = ListAll(sources);
  ASSERT_OK(items);
  int of_sandbox = 0;
  for (const auto& item : *items) of_sandbox += item.short_id == one_ ? 1 : 0;
  EXPECT_EQ(of_sandbox, 2) << "its snapshot and its store's loop";
}

}  // namespace
}  // namespace dormouse::test
