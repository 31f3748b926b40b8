#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "node-agent/host/launch.h"
#include "node-agent/host/mounts.h"
#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"
#include "src/common/base/units.h"

namespace dormouse::host {
namespace {

// 8 MiB with one block of data in the middle.
void MakeSparse(const std::string& path) {
  auto file = OpenFile(path, O_RDWR | O_CREAT);
  ASSERT_OK(file);
  ASSERT_EQ(::ftruncate(file->get(), 8 * kMiB), 0);
  const std::string block(4096, 'x');
  ASSERT_EQ(::pwrite(file->get(), block.data(), block.size(), 4 * kMiB), 4096);
}

TEST(SparseFilesTest, UsageIsWhatIsAllocatedNotTheApparentSize) {
  const ScratchDirectory scratch;
  MakeSparse(scratch / "a");
  EXPECT_EQ(SizeBytes(scratch / "a").value(), 8 * kMiB);
  EXPECT_LE(AllocatedBytes(scratch / "a").value(), kMiB);
}

TEST(SparseFilesTest, ACloneHasTheSameContentAndTheHoles) {
  const ScratchDirectory scratch;
  MakeSparse(scratch / "a");
  ASSERT_OK(CloneFile(scratch / "a", scratch / "b"));
  EXPECT_EQ(ReadFile(scratch / "a", 16 * kMiB).value(), ReadFile(scratch / "b", 16 * kMiB).value());
  EXPECT_LE(AllocatedBytes(scratch / "b").value(), kMiB);
  EXPECT_EQ(CloneFile(scratch / "a", scratch / "b").error().code(), ErrorCode::kAlreadyExists)
      << "never over another";
}

TEST(SparseFilesTest, FindsTheData) {
  const ScratchDirectory scratch;
  MakeSparse(scratch / "a");
  auto file = OpenFile(scratch / "a", O_RDONLY);
  ASSERT_OK(file);
  const auto extent = NextData(file->get(), 0);
  ASSERT_OK(extent);
  ASSERT_TRUE(extent->has_value());
  EXPECT_EQ((*extent)->offset, 4 * kMiB);
  EXPECT_FALSE(NextData(file->get(), (*extent)->offset + (*extent)->length).value().has_value());
}

TEST(SparseFilesTest, SpaceThatIsSetAsideIsNoData) {
  const ScratchDirectory scratch;
  MakeSparse(scratch / "a");
  const uint64_t data = DataBytes(scratch / "a").value();
  if (data == 8 * kMiB) GTEST_SKIP() << "this file system tells no holes";
  EXPECT_GE(data, 4096U);
  EXPECT_LE(data, AllocatedBytes(scratch / "a").value());
  auto file = OpenFile(scratch / "a", O_RDWR);
  ASSERT_OK(file);
  ASSERT_OK(Allocate(file->get(), 0, 2 * kMiB));
  EXPECT_EQ(DataBytes(scratch / "a").value(), data);
}

TEST(SparseFilesTest, AllocationKeepsContentAndSize) {
  const ScratchDirectory scratch;
  MakeSparse(scratch / "a");
  auto file = OpenFile(scratch / "a", O_RDWR);
  ASSERT_OK(file);
  ASSERT_OK(Allocate(file->get(), 0, 2 * kMiB));
  EXPECT_GE(AllocatedBytes(scratch / "a").value(), 2 * kMiB);
  EXPECT_EQ(SizeBytes(scratch / "a").value(), 8 * kMiB);
}

TEST(MountsTest, WhatIsNotMountedIsDetached) {
  EXPECT_OK(DetachMount("/nowhere/at/all"));
}

TEST(ElfTest, KnowsAProgramThatNeedsLibraries) {
  EXPECT_TRUE(IsDynamicallyLinked("/bin/ls").value());
  const ScratchDirectory scratch;
  ASSERT_OK(WriteFileAtomically(scratch / "text", "#!/bin/sh\n"));
  EXPECT_EQ(IsDynamicallyLinked(scratch / "text").error().code(), ErrorCode::kInvalid);
}

}  // namespace
}  // namespace dormouse::host
