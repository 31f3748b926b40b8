#include "node-agent/disk/images.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "node-agent/host/test_support.h"
#include "src/common/base/files.h"
#include "src/common/base/hash.h"

namespace dormouse::disk {
namespace {

using ::testing::HasSubstr;

void Put(std::string* bytes, size_t offset, uint64_t value, size_t width) {
  for (size_t i = 0; i < width; ++i) (*bytes)[offset + i] = static_cast<char>(value >> (8 * i));
}

// The head of an ext4 file system of `blocks` blocks of 4 KiB.
std::string ExtHead(uint64_t blocks) {
  std::string head(4096, '\0');
  Put(&head, 1024 + 4, blocks & 0xffffffff, 4);
  Put(&head, 1024 + 24, 2, 4);
  Put(&head, 1024 + 56, 0xEF53, 2);
  Put(&head, 1024 + 96, 0x80, 4);
  Put(&head, 1024 + 336, blocks >> 32, 4);
  return head;
}

class ImagesTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& content) {
    ASSERT_OK(MakeDirectories(scratch_ / "images"));
    ASSERT_OK(WriteFileAtomically(scratch_ / ("images/" + name), content));
  }
  Images Open() { return Images(scratch_ / "images", scratch_ / "digests.json"); }
  host::ScratchDirectory scratch_;
};

TEST(FileSystemBytesTest, ReadsExtXfsAndBtrfs) {
  EXPECT_EQ(FileSystemBytes(ExtHead(16384)), 64U << 20);
  EXPECT_EQ(FileSystemBytes(ExtHead(uint64_t{1} << 33)), uint64_t{1} << 45);
  std::string xfs(4096, '\0');
  xfs.replace(0, 4, "XFSB");
  xfs[6] = 0x10;   // block size 4096, big endian
  xfs[14] = 0x40;  // 0x4000 blocks
  EXPECT_EQ(FileSystemBytes(xfs), 64U << 20);
  std::string btrfs((64 << 10) + 4096, '\0');
  btrfs.replace((64 << 10) + 64, 8, "_BHRfS_M");
  Put(&btrfs, (64 << 10) + 112, 256 << 20, 8);
  EXPECT_EQ(FileSystemBytes(btrfs), 256U << 20);
}

TEST(FileSystemBytesTest, SaysNothingOfOtherContent) {
  EXPECT_FALSE(FileSystemBytes(""));
  EXPECT_FALSE(FileSystemBytes(std::string(70000, '\0')));
  EXPECT_FALSE(FileSystemBytes(ExtHead(1).substr(0, 1100))) << "cut off";
  std::string absurd = ExtHead(1);
  Put(&absurd, 1024 + 24, 200, 4);
  EXPECT_FALSE(FileSystemBytes(absurd));
}

TEST_F(ImagesTest, AnImageIsUsableOnceItsDigestIsKnown) {
  Write("debian-12.img", std::string(4096, 'd'));
  Write("notes.txt", "no image");
  Images images = Open();
  EXPECT_EQ(images.Resolve("debian-12").error().code(), ErrorCode::kUnavailable);
  ASSERT_OK(images.RefreshDigests());
  const auto image = images.Resolve("debian-12");
  ASSERT_OK(image);
  EXPECT_EQ(image->digest, Sha256(std::string(4096, 'd')));
  EXPECT_EQ(image->size_bytes, 4096U);
  EXPECT_EQ(images.Scan().value().size(), 1U);
  EXPECT_EQ(images.Resolve("fedora").error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(images.Resolve("../debian-12").error().code(), ErrorCode::kInvalid);
}

TEST_F(ImagesTest, DigestsOutliveTheAgentAndEndWithTheContent) {
  Write("a.raw", std::string(512, 'a'));
  Images first = Open();
  ASSERT_OK(first.RefreshDigests());
  Images second = Open();
  EXPECT_OK(second.Resolve("a")) << "remembered";
  Write("a.raw", std::string(512, 'b'));
  EXPECT_EQ(second.Resolve("a").error().code(), ErrorCode::kUnavailable)
      << "another file of that name";
  ASSERT_OK(second.RefreshDigests());
  EXPECT_EQ(second.Resolve("a")->digest, Sha256(std::string(512, 'b')));
}

TEST_F(ImagesTest, ATruncatedImageIsNamedNotUsed) {
  Write("short.img", ExtHead(16384));
  Write("cut.img", std::string(1024, 'c'));
  Write("odd.img", std::string(1000, 'o'));
  Images images = Open();
  ASSERT_OK(images.RefreshDigests());
  EXPECT_OK(images.Resolve("cut"));
  ASSERT_EQ(::truncate((scratch_ / "images/cut.img").c_str(), 512), 0);
  for (const std::string name : {"short", "cut"}) {
    const auto image = images.Resolve(name);
    ASSERT_FALSE(image) << name;
    EXPECT_EQ(image.error().code(), ErrorCode::kCorrupt);
    EXPECT_THAT(image.error().message(), HasSubstr("image " + name + " is truncated"));
  }
  EXPECT_THAT(images.Resolve("odd").error().message(), HasSubstr("no multiple of 512"));
}

TEST_F(ImagesTest, AGarbledCacheIsTakenAnew) {
  Write("a.img", std::string(512, 'a'));
  ASSERT_OK(WriteFileAtomically(scratch_ / "digests.json", "{\"x\": [1, 2"));
  Images images = Open();
  ASSERT_OK(images.RefreshDigests());
  EXPECT_OK(images.Resolve("a"));
}

}  // namespace
}  // namespace dormouse::disk
