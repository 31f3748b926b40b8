#include "node-agent/memory/ram_map.h"

#include <gtest/gtest.h>

#include "node-agent/memory/test_support.h"
#include "src/common/base/files.h"

namespace dormouse::memory {
namespace {

using host::ScratchDirectory;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// As v53.0 has it with 512 MiB of anonymous RAM, shortened.
constexpr char kMaps[] =
    "55e0c4a00000-55e0c4ee0000 r-xp 00000000 fe:00 131842   /vmm/cloud hypervisor\n"
    "55e0c6200000-55e0c6260000 rw-p 00000000 00:00 0        [heap]\n"
    "7f10a0000000-7f10c0000000 rw-p 00000000 00:00 0 \n"
    "7f10c0000000-7f10c0001000 ---p 00000000 00:00 0 \n"
    "7f10c0001000-7f10c0201000 rw-p 00000000 00:00 0 \n"
    "7ffd8d7e0000-7ffd8d801000 rw-p 00000000 00:00 0        [stack]\n";

std::vector<Mapping> Maps(const std::string& text) {
  auto mappings = ParseMaps(text);
  EXPECT_OK(mappings);
  return mappings.value_or(std::vector<Mapping>{});
}

bool IsInode42(const Mapping& mapping) {
  return mapping.inode == 42;
}

template <typename T>
ErrorCode CodeOf(const Result<T>& result) {
  return result ? ErrorCode::kInternal : result.error().code();
}

TEST(RamMapTest, ReadsEachFieldOfALine) {
  const auto mappings = Maps(kMaps);
  ASSERT_EQ(mappings.size(), 6u);
  EXPECT_EQ(mappings[0].start, 0x55e0c4a00000u);
  EXPECT_EQ(mappings[0].end, 0x55e0c4ee0000u);
  EXPECT_TRUE(mappings[0].readable);
  EXPECT_FALSE(mappings[0].writable);
  EXPECT_EQ(mappings[0].device_major, 0xfeu);
  EXPECT_EQ(mappings[0].inode, 131842u);
  EXPECT_EQ(mappings[0].path, "/vmm/cloud hypervisor");
  EXPECT_EQ(mappings[2].path, "");
}

TEST(RamMapTest, RefusesWhatIsNotMaps) {
  for (const char* text : {"\n", "7f10", "7f10-7f00 rw-p 0 0:0 0\n", "7f00-7f10 rw-p\n",
                           "7f00-7f10 rw-p 00 fe:00 \n", "zz-7f10 rw-p 0 0:0 0\n"}) {
    EXPECT_EQ(CodeOf(ParseMaps(text)), ErrorCode::kInvalid) << text;
  }
}

TEST(RamMapTest, AnonymousRamIsTheOneMappingOfItsSize) {
  const auto map = FindAnonymousRam(Maps(kMaps), {{0, 512 * kMiB}});
  ASSERT_OK(map);
  EXPECT_FALSE(map->from_file);
  EXPECT_EQ(map->bytes, 512 * kMiB);
  EXPECT_EQ(map->segments, (std::vector<RamSegment>{{0x7f10a0000000, 512 * kMiB, 0}}));
}

TEST(RamMapTest, AboveThreeGiBTheSecondRangeFollowsTheFirstInTheFile) {
  const auto map = FindAnonymousRam(Maps("7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \n"
                                         "7f1000000000-7f10c0000000 rw-p 00000000 00:00 0 \n"),
                                    {{0, 3072 * kMiB}, {4096 * kMiB, 1024 * kMiB}});
  ASSERT_OK(map);
  EXPECT_EQ(map->segments, (std::vector<RamSegment>{{0x7f1000000000, 3072 * kMiB, 0},
                                                    {0x7f0000000000, 1024 * kMiB, 3072 * kMiB}}));
}

TEST(RamMapTest, AmbiguousAnonymousRamIsRefused) {
  const std::string again = "7f2000000000-7f2020000000 rw-p 00000000 00:00 0 \n";
  EXPECT_EQ(CodeOf(FindAnonymousRam(Maps(kMaps + again), {{0, 512 * kMiB}})),
            ErrorCode::kUnsupported);
  // Merged with a neighbour: no mapping has its size.
  EXPECT_EQ(CodeOf(FindAnonymousRam(Maps("7f2000000000-7f2020001000 rw-p 00000000 00:00 0 \n"),
                                    {{0, 512 * kMiB}})),
            ErrorCode::kUnsupported);
  // Two of one size: which is which?
  EXPECT_EQ(
      CodeOf(FindAnonymousRam(Maps(kMaps + again), {{0, 512 * kMiB}, {4096 * kMiB, 512 * kMiB}})),
      ErrorCode::kUnsupported);
}

TEST(RamMapTest, SharedOrReadOnlyMemoryIsNotRam) {
  for (const char* permissions : {"rw-s", "r--p", "---p"}) {
    const std::string text =
        std::string("7f2000000000-7f2020000000 ") + permissions + " 00000000 00:00 0 \n";
    EXPECT_EQ(CodeOf(FindAnonymousRam(Maps(text), {{0, 512 * kMiB}})), ErrorCode::kUnsupported);
  }
}

TEST(RamMapTest, FileRamIsFoundByItsOffsetsHoweverItWasSplitOrMerged) {
  const std::vector<GuestRange> ranges = {{0, 3072 * kMiB}, {4096 * kMiB, 1024 * kMiB}};
  const std::string expected[] = {
      // Two mappings, the second below the first.
      "7f0000000000-7f0040000000 rw-p c0000000 fe:00 42 /vm/memory\n"
      "7f1000000000-7f10c0000000 rw-p 00000000 fe:00 42 /vm/memory\n",
      // One, merged.
      "7f0000000000-7f0100000000 rw-p 00000000 fe:00 42 /vm/memory\n",
      // Three, one split by an madvise.
      "7f0000000000-7f0040000000 rw-p c0000000 fe:00 42 /vm/memory (deleted)\n"
      "7f1000000000-7f1000001000 rw-p 00000000 fe:00 42 /vm/memory (deleted)\n"
      "7f1000001000-7f10c0000000 rw-p 00001000 fe:00 42 /vm/memory (deleted)\n",
  };
  for (const std::string& text : expected) {
    const auto map = FindFileRam(Maps(text), ranges, IsInode42);
    ASSERT_OK(map) << text;
    EXPECT_TRUE(map->from_file);
    EXPECT_EQ(map->bytes, 4096 * kMiB);
    EXPECT_EQ(map->segments.front().file_offset, 0u);
  }
}

TEST(RamMapTest, FileRamThatIsNotWhollyAndOnceMappedIsRefused) {
  const std::vector<GuestRange> ranges = {{0, 512 * kMiB}};
  for (const char* text : {
           "",                                                               // none
           "7f0000000000-7f0020000000 rw-p 00000000 fe:00 43 /vm/memory\n",  // another file
           "7f0000000000-7f0010000000 rw-p 00000000 fe:00 42 /vm/memory\n",  // half
           "7f0000000000-7f0020000000 rw-p 00001000 fe:00 42 /vm/memory\n",  // elsewhere
           "7f0000000000-7f0020000000 rw-s 00000000 fe:00 42 /vm/memory\n",  // shared
           "7f0000000000-7f0020000000 rw-p 00000000 fe:00 42 /vm/memory\n"   // and again
           "7f1000000000-7f1000001000 rw-p 00000000 fe:00 42 /vm/memory\n",
       }) {
    EXPECT_EQ(CodeOf(FindFileRam(Maps(text), ranges, IsInode42)), ErrorCode::kUnsupported) << text;
  }
}

TEST(RamMapTest, RangesThatOverlapOrAreNotPagesAreRefused) {
  const std::vector<std::vector<GuestRange>> bad = {
      {}, {{0, 4097}}, {{0, 0}}, {{0, 8192}, {4096, 8192}}, {{~uint64_t{0} - 4095, 8192}}};
  for (const auto& ranges : bad) {
    EXPECT_EQ(CodeOf(FindAnonymousRam({}, ranges)), ErrorCode::kUnsupported);
  }
}

TEST(RamMapTest, FindsTheRamOfARealProcessByTheFileItIsMappedFrom) {
  const ScratchDirectory scratch;
  const std::vector<GuestRange> ranges = {{0, 3 * kMiB}, {4096 * kMiB, kMiB}};
  ASSERT_OK(WriteFileAtomically(scratch / "memory", std::string(4 * kMiB, 'm')));
  ASSERT_OK(WriteFileAtomically(scratch / "other", std::string(4 * kMiB, 'm')));
  const FakeVmm vmm(ranges, scratch / "memory", [](const auto&) {});
  // The file may have another name by now: only its identity counts.
  ASSERT_EQ(::rename((scratch / "memory").c_str(), (scratch / "moved").c_str()), 0);

  const auto map = FindRam(vmm.pid(), ranges, scratch / "moved");
  ASSERT_OK(map);
  EXPECT_EQ(map->bytes, 4 * kMiB);
  EXPECT_EQ(CodeOf(FindRam(vmm.pid(), ranges, scratch / "other")), ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf(FindRam(vmm.pid(), ranges, std::nullopt)), ErrorCode::kUnsupported);
}

TEST(RamMapTest, FindsTheAnonymousRamOfARealProcess) {
  const std::vector<GuestRange> ranges = {{0, 37 * kMiB}, {4096 * kMiB, 11 * kMiB}};
  FakeVmm vmm(ranges, std::nullopt, [](const auto&) {});
  ASSERT_OK(FindRam(vmm.pid(), ranges, std::nullopt));
  const int pid = vmm.pid();
  vmm.Kill();
  EXPECT_EQ(CodeOf(FindRam(pid, ranges, std::nullopt)), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace dormouse::memory
