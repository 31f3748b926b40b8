// The root disk over the fake device-mapper, which keeps the kernel's rules; host_node_test shows
// the same on the real one.
#include "node-agent/disk/root_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "node-agent/host/test_support.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/files.h"
#include "src/common/base/hash.h"
#include "src/common/base/units.h"
#include "tests/fakes/fake_block.h"

namespace dormouse::disk {
namespace {

using fakes::FakeBlock;
using ::testing::HasSubstr;

const std::string kDigest = Sha256(std::string(kMiB, 'b'));

class RootDiskTest : public ::testing::Test {
 protected:
  RootDiskTest() { Restart(); }
  void SetUp() override {
    ASSERT_OK(MakeDirectories(scratch_ / "images"));
    ASSERT_OK(WriteFileAtomically(scratch_ / "images/base.img", std::string(kMiB, 'b')));
    const auto base = bases_->Pin({"base", scratch_ / "images/base.img", kMiB, kDigest, ""});
    ASSERT_OK(base);
    base_ = *base;
  }
  void TearDown() override { failpoint::DisarmAll(); }

  // As a new agent would find it: nothing is kept but what the "kernel" and the files hold.
  void Restart() {
    block_ = std::make_unique<FakeBlock>(scratch_ / "kernel");
    bases_ = std::make_unique<BaseDevices>(block_->dm(), block_->loops(), scratch_ / "bases");
    disks_ = std::make_unique<RootDisks>(block_->dm(), block_->loops(), *bases_);
  }
  RootDiskSpec Spec(const std::string& id, uint64_t disk_bytes = 4 * kMiB) {
    return {id,  "default/" + id, base_, disk_bytes, scratch_ / ("sandboxes/" + id + "/store"),
            kMiB};
  }
  Result<host::DmDevice> Device(const std::string& id) {
    return block_->dm().Find(host::DmName::RootOf(id));
  }
  // A VMM can open it, and reads what was written.
  bool IsReady(const std::string& id) {
    const auto device = Device(id);
    return device && device->active && !device->suspended && disks_->Usage(Spec(id))->valid;
  }
  size_t Devices() {
    return block_->dm().List().value().size() + block_->loops().List().value().size();
  }

  const std::string one_ = "111111111111";
  const std::string two_ = "222222222222";
  host::ScratchDirectory scratch_;
  std::unique_ptr<FakeBlock> block_;
  std::unique_ptr<BaseDevices> bases_;
  std::unique_ptr<RootDisks> disks_;
  Base base_;
};

TEST_F(RootDiskTest, AnImageThatIsNotWhatItsDigestSaysIsNotPinned) {
  const std::string other(64, 'c');
  const auto pinned = bases_->Pin({"base", scratch_ / "images/base.img", kMiB, other, ""});
  ASSERT_FALSE(pinned);
  EXPECT_EQ(pinned.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(pinned.error().message(), HasSubstr("image base is damaged"));
  EXPECT_EQ(bases_->Find(other).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(bases_->List()->size(), 1U) << "only the other one";
}

TEST_F(RootDiskTest, ABaseThatWasChangedIsNotUsedUntilItIsAsItWas) {
  const auto write = [this](char content) {
    std::ofstream(base_.file, std::ios::in | std::ios::out) << content;
  };
  write('x');
  for (int time = 0; time < 2; ++time) {
    const auto prepared = disks_->Prepare(Spec(one_));
    ASSERT_FALSE(prepared);
    EXPECT_EQ(prepared.error().code(), ErrorCode::kCorrupt);
    EXPECT_THAT(prepared.error().message(), HasSubstr(kDigest));
    EXPECT_FALSE(bases_->Pin({"base", scratch_ / "images/base.img", kMiB, kDigest, ""}));
  }
  write('b');
  ASSERT_OK(disks_->Prepare(Spec(one_)));
}

TEST_F(RootDiskTest, ABaseOfBeforeBasesWereCheckedIsCheckedAtItsNextUse) {
  ASSERT_OK(RemoveFile(base_.file + ".checked"));
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  EXPECT_TRUE(PathExists(base_.file + ".checked"));
  ASSERT_OK(disks_->Release(one_));
  ASSERT_OK(bases_->Unpin(kDigest));
  EXPECT_TRUE(ListDirectory(scratch_ / "bases")->empty());
}

TEST_F(RootDiskTest, IsMadeOnceAndLeavesNothing) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  const auto number = disks_->Prepare(Spec(one_));
  ASSERT_OK(number);
  EXPECT_TRUE(IsReady(one_));
  EXPECT_EQ(Device(one_)->number, *number);
  ASSERT_OK(disks_->Release(one_));
  ASSERT_OK(disks_->Release(one_));
  EXPECT_EQ(Devices(), 0U);
}

TEST_F(RootDiskTest, DisksThatADeadAgentLeftSuspendedAreResumedAlsoBesideOneThatCannotBe) {
  const auto suspended = [this](const std::string& id) { return Device(id)->suspended; };
  for (const std::string& id : {one_, two_}) {
    ASSERT_OK(disks_->Prepare(Spec(id)));
    ASSERT_OK(block_->dm().Suspend(host::DmName::RootOf(id)));
  }
  Restart();
  ASSERT_OK(failpoint::Arm("fake.dm.resume@dormouse-" + one_ + "-root=error(EIO)"));
  EXPECT_OK(disks_->ResumeAll());
  EXPECT_TRUE(suspended(one_));
  EXPECT_FALSE(suspended(two_));
  failpoint::DisarmAll();
  EXPECT_OK(disks_->ResumeAll());
  EXPECT_FALSE(suspended(one_));
}

TEST_F(RootDiskTest, SandboxesShareTheBaseAndTheLastOneReleasesIt) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  ASSERT_OK(disks_->Prepare(Spec(two_)));
  EXPECT_EQ(Devices(), 2U + 2U + 2U) << "base loop and origin once; store loop and snapshot each";
  ASSERT_OK(disks_->Release(one_));
  EXPECT_TRUE(IsReady(two_));
  EXPECT_EQ(bases_->Unpin(kDigest).error().code(), ErrorCode::kBusy);
  ASSERT_OK(disks_->Release(two_));
  EXPECT_EQ(Devices(), 0U);
  EXPECT_OK(bases_->Unpin(kDigest));
  EXPECT_TRUE(bases_->List().value().empty());
}

TEST_F(RootDiskTest, ADiskOfTheBasesSizeNeedsNoOrigin) {
  ASSERT_OK(disks_->Prepare(Spec(one_, kMiB)));
  EXPECT_EQ(block_->dm().List().value().size(), 1U);
  EXPECT_TRUE(IsReady(one_));
  ASSERT_OK(disks_->Release(one_));
  EXPECT_EQ(Devices(), 0U);
  EXPECT_EQ(disks_->Prepare(Spec(one_, kMiB / 2)).error().code(), ErrorCode::kInvalid);
}

TEST_F(RootDiskTest, AFailureAtAnyStepHealsAndIsUndoneWhole) {
  for (const std::string step : {"base-loop", "origin", "store-file", "store-loop", "snapshot"}) {
    for (const std::string edge : {"", ".done"}) {
      ASSERT_OK(failpoint::Arm("disk." + step + edge + "@default/" + one_ + "=1*error(EIO)"));
      EXPECT_FALSE(disks_->Prepare(Spec(one_))) << step << edge;
      failpoint::DisarmAll();
      Restart();
      EXPECT_OK(disks_->Prepare(Spec(one_))) << step << edge;
      ASSERT_OK(failpoint::Arm("disk." + step + edge + "@default/" + two_ + "=1*error(EIO)"));
      EXPECT_FALSE(disks_->Prepare(Spec(two_))) << step << edge;
      failpoint::DisarmAll();
      Restart();
      EXPECT_OK(disks_->Release(two_)) << step << edge;
      EXPECT_TRUE(IsReady(one_)) << "the neighbour does not notice";
      EXPECT_OK(disks_->Release(one_)) << step << edge;
      EXPECT_EQ(Devices(), 0U) << step << edge;
    }
  }
}

TEST_F(RootDiskTest, IsNotRemovedUnderAVmm) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  ASSERT_OK(block_->SetOpen("dormouse-" + one_ + "-root", true));
  EXPECT_EQ(disks_->Release(one_).error().code(), ErrorCode::kBusy);
  EXPECT_TRUE(IsReady(one_)) << "nothing of it was taken away";
  ASSERT_OK(block_->SetOpen("dormouse-" + one_ + "-root", false));
  EXPECT_OK(disks_->Release(one_));
}

TEST_F(RootDiskTest, ReleaseKeepsTheData) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  ASSERT_OK(disks_->Release(one_));
  EXPECT_EQ(Devices(), 0U);
  EXPECT_TRUE(PathExists(Spec(one_).store_file));
  EXPECT_OK(disks_->Prepare(Spec(one_)));
}

TEST_F(RootDiskTest, ALostStoreIsSaidAndNotUsed) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  ASSERT_OK(block_->SetStatus("dormouse-" + one_ + "-root", "Invalid"));
  const auto again = disks_->Prepare(Spec(one_));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), ErrorCode::kCorrupt);
  EXPECT_FALSE(IsReady(one_));
  EXPECT_FALSE(disks_->Usage(Spec(one_))->valid);
}

TEST_F(RootDiskTest, UsageIsWhatDiffersAndWhatIsAllocated) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  ASSERT_OK(block_->SetStatus("dormouse-" + one_ + "-root", "6144/8192 48"));
  const auto usage = disks_->KeepAhead(Spec(one_));
  ASSERT_OK(usage);
  EXPECT_EQ(usage->used_bytes, 3 * kMiB);
  EXPECT_EQ(usage->used_percent, 75U);
  EXPECT_GE(host::AllocatedBytes(Spec(one_).store_file).value(), kMiB);
  EXPECT_LT(usage->allocated_bytes, 5 * kMiB);
}

TEST_F(RootDiskTest, AStoreOfTheGenerationBeforeGivesWay) {
  ASSERT_OK(disks_->Prepare(Spec(one_)));
  ASSERT_OK(block_->dm().Remove(host::DmName::RootOf(one_)));
  ASSERT_OK(RemoveFile(Spec(one_).store_file));
  ASSERT_OK(disks_->Prepare(Spec(one_))) << "a new store file under the loop's tag";
  EXPECT_EQ(block_->loops().List("dormouse-" + one_).value().size(), 1U);
}

TEST_F(RootDiskTest, ATruncatedBaseIsNamed) {
  RootDiskSpec spec = Spec(one_);
  spec.base.size_bytes = 2 * kMiB;
  const auto prepared = disks_->Prepare(spec);
  ASSERT_FALSE(prepared);
  EXPECT_EQ(prepared.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(prepared.error().message(), HasSubstr("truncated"));
}

}  // namespace
}  // namespace dormouse::disk
