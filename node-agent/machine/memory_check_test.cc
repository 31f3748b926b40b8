#include "node-agent/machine/memory_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "node-agent/machine/memory_test_parts.h"

namespace dormouse {
namespace {

using ::testing::HasSubstr;

class MemoryCheckTest : public ::testing::Test {
 protected:
  MemoryCheckTest() {
    WriteGeneration(generation_);
    manifest_ = TestManifest(generation_);
  }
  Result<> Use() { return MemoryCheck(paths_).BeforeUse(generation_, manifest_); }
  /// What a boot leaves of the run directory.
  void BootNode() { ASSERT_OK(RemoveTree(paths_.run)); }

  host::ScratchDirectory scratch_;
  Paths paths_{scratch_ / "state", scratch_ / "run"};
  api::SandboxUid uid_ = *api::SandboxUid::Parse("0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a11");
  GenerationName generation_{uid_, 3, paths_.Generation(uid_, 3)};
  memory::Manifest manifest_;
  std::string file_ = generation_.directory + "/" + kMemoryFile;
};

TEST_F(MemoryCheckTest, TheFirstUseAfterABootReadsAllOfItAndTheNextOnesNothing) {
  WriteDigests(generation_);
  ASSERT_OK(Use());
  FlipByte(file_, 5);
  EXPECT_OK(Use()) << "it is not read again in this boot";
  BootNode();
  const auto used = Use();
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(used.error().message(), HasSubstr("memory chunk 0 of 4 (at offset 0) differs"));
  EXPECT_FALSE(Use()) << "nor is what failed taken for verified";
}

TEST_F(MemoryCheckTest, WhatACaptureWroteInThisBootIsNotRead) {
  WriteDigests(generation_);
  MarkVerified(paths_, generation_, IdentityOf(generation_.directory, Holes::kLeave));
  FlipByte(file_, 5);
  EXPECT_OK(Use());
}

TEST_F(MemoryCheckTest, AFileThatWasWrittenOrReplacedSinceIsReadAgain) {
  WriteDigests(generation_);
  ASSERT_OK(Use());
  ASSERT_OK(WriteFileAtomically(file_, TestMemory()));
  EXPECT_FALSE(IsVerified(paths_, generation_));
  EXPECT_OK(Use());
  std::string other = TestMemory();
  other[memory::kChunkBytes] = 'x';
  other[3 * memory::kChunkBytes] = 'x';
  ASSERT_OK(WriteFileAtomically(file_, other));
  const auto used = Use();
  ASSERT_FALSE(used);
  EXPECT_THAT(used.error().message(), HasSubstr("chunk 1 of 4 (at offset 2097152) and 1 more"));
}

TEST_F(MemoryCheckTest, ExtentsThatAreLostAreReadAgainAndMissed) {
  WriteDigests(generation_);
  ASSERT_OK(Use());
  LoseExtents(file_, memory::kChunkBytes, 4096);
  const auto used = Use();
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(used.error().message(), HasSubstr("memory chunk 1 of 4 (at offset 2097152) differs"));
}

TEST_F(MemoryCheckTest, ExtentsThatAreLostBeforeAnybodyCountedAreMissed) {
  MarkVerified(paths_, generation_, IdentityOf(generation_.directory, Holes::kLeave));
  WriteDigests(generation_);
  LoseExtents(file_, memory::kChunkBytes, 4096);
  EXPECT_FALSE(Use());
}

TEST_F(MemoryCheckTest, ExtentsThatAreLostAfterTheyWereCountedAreMissedWithoutDigests) {
  MarkVerified(paths_, generation_, IdentityOf(generation_.directory, Holes::kCount));
  LoseExtents(file_, memory::kChunkBytes, 8192);
  const auto used = Use();
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(used.error().message(),
              HasSubstr(generation_.directory +
                        " holds 8 KiB less than when it was captured: the file system has lost "
                        "extents"));
  EXPECT_FALSE(Use()) << "nor is it the next time";
  ASSERT_OK(WriteFileAtomically(file_, TestMemory()));
  EXPECT_OK(Use()) << "put right by hand";
}

TEST_F(MemoryCheckTest, SpaceThatWasOnlySetAsideMayGoBackAndNothingIsRead) {
  SetAside(file_, 3 * memory::kChunkBytes, memory::kChunkBytes);
  if (host::DataBytes(file_).value() == manifest_.memory.bytes)
    GTEST_SKIP() << "this file system tells no holes";
  WriteDigests(generation_);
  ASSERT_OK(Use());
  const uint64_t before = host::AllocatedBytes(file_).value();
  const std::string mark = ReadFile(paths_.Verified(uid_, generation_.number), 4096).value();
  LoseExtents(file_, 3 * memory::kChunkBytes, memory::kChunkBytes);
  ASSERT_LT(host::AllocatedBytes(file_).value(), before);
  FlipByte(file_, 5);
  EXPECT_OK(Use()) << "a reading would find that byte";
  EXPECT_EQ(ReadFile(paths_.Verified(uid_, generation_.number), 4096).value(), mark)
      << "who only asks writes nothing that another may just have forgotten";
  LoseExtents(file_, memory::kChunkBytes, 4096);
  EXPECT_FALSE(Use()) << "what goes next is data";
}

TEST_F(MemoryCheckTest, ExtentsThatTheStoreHasLostMakeMemoryDoubtfulOnce) {
  const std::string store = generation_.directory + "/" + kStoreFile;
  ASSERT_OK(WriteFileAtomically(store, std::string(1 << 20, 's')));
  WriteDigests(generation_);
  ASSERT_OK(Use());
  LoseExtents(store, 0, 1 << 16);
  EXPECT_FALSE(IsVerified(paths_, generation_));
  ASSERT_OK(Use());
  FlipByte(file_, 5);
  EXPECT_OK(Use()) << "it was read since, and is not read in each start";
}

TEST_F(MemoryCheckTest, AMarkOfAnAgentThatCountedNothingStaysGood) {
  WriteDigests(generation_);
  ASSERT_OK(Use());
  const std::string mark = paths_.Verified(uid_, generation_.number);
  const std::string text = ReadFile(mark, 4096).value();
  ASSERT_OK(WriteFileAtomically(mark, text.substr(0, text.find('\n') + 1)));
  EXPECT_TRUE(IsVerified(paths_, generation_));
}

TEST(OnlyGaveSpaceBackTest, IsFalseForLessDataAndWhereNothingIsKnown) {
  const FilesIdentity marked{"1 2 3", 100, 60};
  EXPECT_TRUE(OnlyGaveSpaceBack(marked, {"1 2 3", 60, 60}));
  EXPECT_FALSE(OnlyGaveSpaceBack(marked, {"1 2 3", 60, 59}));
  EXPECT_FALSE(OnlyGaveSpaceBack({"1 2 3", 100, {}}, {"1 2 3", 60, 60})) << "nobody counted";
  EXPECT_FALSE(OnlyGaveSpaceBack({"1 2 3", 100, 200}, {"1 2 3", 60, 200}))
      << "a file system that tells no holes";
}

TEST(LostBytesTest, IsWhatDataIsGoneWhereThatIsKnown) {
  const FilesIdentity marked{"1 2 3", 100, 60};
  EXPECT_EQ(LostBytes(marked, {"1 2 3", 50, 50}), 10U);
  EXPECT_EQ(LostBytes(marked, {"1 2 3", 60, 60}), 0U) << "it only gave space back";
  EXPECT_EQ(LostBytes(marked, {"1 2 3", 80, 70}), 0U);
  EXPECT_EQ(LostBytes(marked, {"1 2 3", 100, 50}), 0U) << "zeros that the page cache has dropped";
  EXPECT_EQ(LostBytes(marked, {"4 2 3", 50, 50}), 0U) << "another file";
  EXPECT_EQ(LostBytes({"1 2 3", 100, {}}, {"1 2 3", 50, 50}), 0U) << "nobody counted";
  EXPECT_EQ(LostBytes(marked, {"1 2 3", 50, {}}), 0U);
  EXPECT_EQ(LostBytes(marked, {"1 2 3", 50, 55}), 0U) << "a file system that tells no holes";
  EXPECT_EQ(LostBytes({"1 2 3", 100, 200}, {"1 2 3", 50, 50}), 0U);
}

TEST_F(MemoryCheckTest, DamageIsReadOnceUntilTheFileIsAnother) {
  WriteDigests(generation_);
  FlipByte(file_, 5);
  MemoryCheck check(paths_);
  ASSERT_FALSE(check.BeforeUse(generation_, manifest_));
  FlipByte(file_, 5);
  EXPECT_FALSE(check.BeforeUse(generation_, manifest_)) << "it was not read again";
  ASSERT_OK(WriteFileAtomically(file_, TestMemory()));
  EXPECT_OK(check.BeforeUse(generation_, manifest_)) << "put right by hand";
}

TEST_F(MemoryCheckTest, OneThatIsCutIsCorrupt) {
  WriteDigests(generation_);
  ASSERT_EQ(::truncate(file_.c_str(), 4096), 0);
  const auto used = Use();
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code(), ErrorCode::kCorrupt);
}

TEST_F(MemoryCheckTest, WithoutDigestsItIsUsedAndStaysUnverified) {
  EXPECT_OK(Use());
  EXPECT_FALSE(IsVerified(paths_, generation_));
  ASSERT_OK(WriteFileAtomically(generation_.directory + "/" + kDigestsFile, "torn"));
  EXPECT_OK(Use());
  // Of another generation.
  const GenerationName other{uid_, 4, generation_.directory};
  ASSERT_OK(WriteFileAtomically(generation_.directory + "/" + kDigestsFile,
                                memory::EncodeDigests(DigestsOf(other))));
  EXPECT_OK(Use());
  EXPECT_FALSE(IsVerified(paths_, generation_));
}

TEST_F(MemoryCheckTest, ThoseThatWantTheSameOneReadItOnce) {
  WriteDigests(generation_);
  MemoryCheck check(paths_);
  std::vector<std::thread> clones;
  for (int i = 0; i < 4; ++i) {
    clones.emplace_back([&] { EXPECT_OK(check.BeforeUse(generation_, manifest_)); });
  }
  for (std::thread& clone : clones) clone.join();
  EXPECT_TRUE(IsVerified(paths_, generation_));
}

TEST_F(MemoryCheckTest, AMarkThatCannotBeWrittenFailsNoWake) {
  WriteDigests(generation_);
  ASSERT_OK(WriteFileAtomically(paths_.run, "no directory"));
  EXPECT_OK(Use());
}

}  // namespace
}  // namespace dormouse
