#include "node-agent/memory/digests.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"
#include "src/common/base/files.h"
#include "src/common/base/hash.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::memory {
namespace {

using host::ScratchDirectory;
using ::testing::HasSubstr;

// Five chunks and a bit: data, zeros as data, hole, data at the end of a chunk, data, data.
constexpr uint64_t kImageBytes = 5 * kChunkBytes + 12288;

bool Always() {
  return true;
}

class DigestsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    image_.assign(kImageBytes, '\0');
    std::memset(image_.data(), 'a', kChunkBytes);
    image_[4 * kChunkBytes - 1] = 'b';
    image_[4 * kChunkBytes] = 'c';
    image_[kImageBytes - 1] = 'd';
    ASSERT_OK(WriteFileAtomically(path_, image_));
    const UniqueFd file(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * kChunkBytes,
                          kChunkBytes),
              0);
    manifest_.generation = 3;
    manifest_.memory.bytes = kImageBytes;
  }

  void Overwrite(uint64_t offset, const std::string& data) {
    const UniqueFd file(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_EQ(::pwrite(file.get(), data.data(), data.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(data.size()));
  }

  MemoryDigests Digest(const MemoryDigests* parent = nullptr) {
    auto digests = DigestMemory(path_, manifest_, parent, Always);
    EXPECT_OK(digests);
    return digests.value_or(MemoryDigests{});
  }

  ScratchDirectory scratch_;
  std::string path_ = scratch_ / "memory";
  std::string image_;
  Manifest manifest_;
};

TEST_F(DigestsTest, OneForEachChunkAndTheSameForAllKindsOfZeros) {
  const MemoryDigests digests = Digest();
  EXPECT_EQ(digests.generation, 3u);
  EXPECT_EQ(digests.bytes, kImageBytes);
  const std::string_view image = image_;
  const std::vector<std::string> expected = {Sha256(image.substr(0, kChunkBytes)),
                                             "0",
                                             "0",
                                             Sha256(image.substr(3 * kChunkBytes, kChunkBytes)),
                                             Sha256(image.substr(4 * kChunkBytes, kChunkBytes)),
                                             Sha256(image.substr(5 * kChunkBytes))};
  EXPECT_EQ(digests.chunks, expected);
}

TEST_F(DigestsTest, WhatIsWrittenIsRead) {
  const MemoryDigests digests = Digest();
  const std::string text = EncodeDigests(digests);
  const auto decoded = DecodeDigests(text);
  ASSERT_OK(decoded);
  EXPECT_EQ(*decoded, digests);
  EXPECT_FALSE(DecodeDigests(text.substr(0, text.size() / 2)));
  std::string flipped = text;
  flipped[text.find(digests.chunks[0])] = 'x';
  ASSERT_FALSE(DecodeDigests(flipped));
  EXPECT_EQ(DecodeDigests(flipped).error().code(), ErrorCode::kCorrupt);

  MemoryDigests fewer = digests;
  fewer.chunks.pop_back();
  EXPECT_FALSE(DecodeDigests(EncodeDigests(fewer)));
  MemoryDigests odd = digests;
  odd.chunks[0] = "1";
  EXPECT_FALSE(DecodeDigests(EncodeDigests(odd)));
}

TEST_F(DigestsTest, AnIntactFileAndItsSparseCopyVerify) {
  const MemoryDigests digests = Digest();
  EXPECT_OK(VerifyMemory(path_, digests, Always));
  ASSERT_OK(host::CopySparse(path_, scratch_ / "copy"));
  EXPECT_OK(VerifyMemory(scratch_ / "copy", digests, Always));
  ASSERT_OK(WriteFileAtomically(scratch_ / "dense", image_));
  EXPECT_OK(VerifyMemory(scratch_ / "dense", digests, Always));
}

TEST_F(DigestsTest, AMismatchNamesTheChunkAndItsOffset) {
  const MemoryDigests digests = Digest();
  Overwrite(3 * kChunkBytes + 5, "x");
  const auto one = VerifyMemory(path_, digests, Always);
  ASSERT_FALSE(one);
  EXPECT_EQ(one.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(one.error().message(), HasSubstr("memory chunk 3 of 6 (at offset 6291456) differs"));

  Overwrite(2 * kChunkBytes, "x");  // where there was a hole
  Overwrite(kImageBytes - 1, "x");
  const auto three = VerifyMemory(path_, digests, Always);
  ASSERT_FALSE(three);
  EXPECT_THAT(three.error().message(),
              HasSubstr("memory chunk 2 of 6 (at offset 4194304) and 2 more differ"));
}

TEST_F(DigestsTest, ATruncatedFileIsCorrupt) {
  const MemoryDigests digests = Digest();
  ASSERT_EQ(::truncate(path_.c_str(), kImageBytes - 4096), 0);
  const auto verified = VerifyMemory(path_, digests, Always);
  ASSERT_FALSE(verified);
  EXPECT_EQ(verified.error().code(), ErrorCode::kCorrupt);
  const auto digested = DigestMemory(path_, manifest_, nullptr, Always);
  ASSERT_FALSE(digested);
  EXPECT_EQ(digested.error().code(), ErrorCode::kCorrupt);
}

TEST_F(DigestsTest, OnlyChangedChunksAreReadAndTheOthersCarriedForward) {
  MemoryDigests parent = Digest();
  parent.chunks[0] = std::string(64, 'e');  // shows that it is carried, not read
  Overwrite(4 * kChunkBytes + 9, "new");
  manifest_.generation = 4;
  manifest_.parent = 3;
  manifest_.changed_chunks = {{4, 1}};
  int reads = 0;
  const auto digests = DigestMemory(path_, manifest_, &parent, [&] { return ++reads > 0; });
  ASSERT_OK(digests);
  EXPECT_EQ(reads, 1);
  EXPECT_EQ(digests->chunks[0], parent.chunks[0]);
  EXPECT_EQ(digests->chunks[4], Digest().chunks[4]);
  EXPECT_NE(digests->chunks[4], parent.chunks[4]);
}

TEST_F(DigestsTest, DigestsOfAnotherGenerationAreNotCarriedForward) {
  MemoryDigests stranger = Digest();
  const MemoryDigests whole = stranger;
  stranger.chunks[0] = std::string(64, 'e');
  manifest_.parent = 2;  // and `stranger` is of 3
  manifest_.changed_chunks = {{4, 1}};
  EXPECT_EQ(Digest(&stranger), whole);
}

TEST_F(DigestsTest, TheWorkEndsWhenItIsNoLongerAskedFor) {
  const MemoryDigests digests = Digest();
  const auto never = [] { return false; };
  EXPECT_EQ(DigestMemory(path_, manifest_, nullptr, never).error().code(), ErrorCode::kCancelled);
  EXPECT_EQ(VerifyMemory(path_, digests, never).error().code(), ErrorCode::kCancelled);
}

}  // namespace
}  // namespace dormouse::memory
