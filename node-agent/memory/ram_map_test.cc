#include "node-agent/memory/ram_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "node-agent/memory/test_support.h"
#include "src/common/base/files.h"
#include "src/common/base/units.h"

namespace dormouse::memory {
namespace {

using host::ScratchDirectory;

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

// Who is asked where the guest starts, and must not be.
Result<bool> Nobody(uint64_t address) {
  ADD_FAILURE() << "asked of " << address;
  return true;
}

GuestStartsAt At(std::vector<uint64_t> addresses) {
  return [addresses](uint64_t address) -> Result<bool> {
    return std::find(addresses.begin(), addresses.end(), address) != addresses.end();
  };
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

TEST(RamMapTest, ABootedGuestHasOneRangeUpToThreeGiBAndThenTwo) {
  EXPECT_EQ(BootRanges(kGiB), (std::vector<GuestRange>{{0, kGiB}}));
  EXPECT_EQ(BootRanges(3 * kGiB), (std::vector<GuestRange>{{0, 3 * kGiB}}));
  EXPECT_EQ(BootRanges(4 * kGiB), (std::vector<GuestRange>{{0, 3 * kGiB}, {4 * kGiB, kGiB}}));
}

TEST(RamMapTest, AnonymousRamIsTheOneMappingOfItsSize) {
  const auto map = FindAnonymousRam(Maps(kMaps), {{0, 512 * kMiB}}, Nobody);
  ASSERT_OK(map);
  EXPECT_FALSE(map->from_file);
  EXPECT_EQ(map->bytes, 512 * kMiB);
  EXPECT_EQ(map->segments, (std::vector<RamSegment>{{0x7f10a0000000, 512 * kMiB, 0}}));
}

TEST(RamMapTest, AboveThreeGiBTheSecondRangeFollowsTheFirstInTheFile) {
  const auto map = FindAnonymousRam(Maps("7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \n"
                                         "7f1000000000-7f10c0000000 rw-p 00000000 00:00 0 \n"),
                                    {{0, 3072 * kMiB}, {4096 * kMiB, 1024 * kMiB}}, Nobody);
  ASSERT_OK(map);
  EXPECT_EQ(map->segments, (std::vector<RamSegment>{{0x7f1000000000, 3072 * kMiB, 0},
                                                    {0x7f0000000000, 1024 * kMiB, 3072 * kMiB}}));
}

TEST(RamMapTest, AmbiguousAnonymousRamIsRefused) {
  const std::string again = "7f2000000000-7f2020000000 rw-p 00000000 00:00 0 \n";
  EXPECT_EQ(CodeOf(FindAnonymousRam(Maps(kMaps + again), {{0, 512 * kMiB}}, Nobody)),
            ErrorCode::kUnsupported);
  // Merged with a neighbour: no mapping has its size.
  EXPECT_EQ(CodeOf(FindAnonymousRam(Maps("7f2000000000-7f2020001000 rw-p 00000000 00:00 0 \n"),
                                    {{0, 512 * kMiB}}, Nobody)),
            ErrorCode::kUnsupported);
}

TEST(RamMapTest, SharedOrReadOnlyMemoryIsNotRam) {
  for (const char* permissions : {"rw-s", "r--p", "---p"}) {
    const std::string text =
        std::string("7f2000000000-7f2020000000 ") + permissions + " 00000000 00:00 0 \n";
    EXPECT_EQ(CodeOf(FindAnonymousRam(Maps(text), {{0, 512 * kMiB}}, Nobody)),
              ErrorCode::kUnsupported);
  }
}

// 4 GiB in one mapping, as the kernel makes of two that lie next to each other.
constexpr char kMerged[] = "7f0000000000-7f0100000000 rw-p 00000000 00:00 0 \n";
const std::vector<GuestRange> kTwoRanges = {{0, 3072 * kMiB}, {4096 * kMiB, 1024 * kMiB}};

TEST(RamMapTest, InAMergedMappingTheRangesLieAsTheGuestsFirstBytesSay) {
  const auto up = FindAnonymousRam(Maps(kMerged), kTwoRanges, At({0x7f0000000000}));
  ASSERT_OK(up);
  EXPECT_EQ(up->segments, (std::vector<RamSegment>{{0x7f0000000000, 3072 * kMiB, 0},
                                                   {0x7f00c0000000, 1024 * kMiB, 3072 * kMiB}}));
  const auto down = FindAnonymousRam(Maps(kMerged), kTwoRanges, At({0x7f0040000000}));
  ASSERT_OK(down);
  EXPECT_EQ(down->segments, (std::vector<RamSegment>{{0x7f0040000000, 3072 * kMiB, 0},
                                                     {0x7f0000000000, 1024 * kMiB, 3072 * kMiB}}));
}

TEST(RamMapTest, OfTwoMappingsOfOneSizeTheFirstIsWhereTheGuestStarts) {
  const std::vector<GuestRange> ranges = {{0, 3072 * kMiB}, {4096 * kMiB, 3072 * kMiB}};
  const auto apart = Maps(
      "7f0000000000-7f00c0000000 rw-p 00000000 00:00 0 \n"
      "7f1000000000-7f10c0000000 rw-p 00000000 00:00 0 \n");
  for (const uint64_t first : {0x7f0000000000u, 0x7f1000000000u}) {
    const uint64_t second = first == 0x7f0000000000u ? 0x7f1000000000u : 0x7f0000000000u;
    const auto map = FindAnonymousRam(apart, ranges, At({first}));
    ASSERT_OK(map);
    EXPECT_EQ(map->segments, (std::vector<RamSegment>{{first, 3072 * kMiB, 0},
                                                      {second, 3072 * kMiB, 3072 * kMiB}}));
  }
  const auto merged = Maps("7f0000000000-7f0180000000 rw-p 00000000 00:00 0 \n");
  const auto map = FindAnonymousRam(merged, ranges, At({0x7f00c0000000}));
  ASSERT_OK(map);
  EXPECT_EQ(map->segments, (std::vector<RamSegment>{{0x7f00c0000000, 3072 * kMiB, 0},
                                                    {0x7f0000000000, 3072 * kMiB, 3072 * kMiB}}));
}

TEST(RamMapTest, AnOrderThatNothingOrTwoThingsSpeakForIsRefused) {
  EXPECT_EQ(CodeOf(FindAnonymousRam(Maps(kMerged), kTwoRanges, At({}))), ErrorCode::kUnsupported);
  // The guest has written what is looked for to the other place, too.
  EXPECT_EQ(
      CodeOf(FindAnonymousRam(Maps(kMerged), kTwoRanges, At({0x7f0000000000, 0x7f0040000000}))),
      ErrorCode::kUnsupported);
  const auto failed = FindAnonymousRam(Maps(kMerged), kTwoRanges, [](uint64_t) -> Result<bool> {
    return Fail(ErrorCode::kUnavailable, "gone");
  });
  EXPECT_EQ(CodeOf(failed), ErrorCode::kUnavailable);
}

// What the VMM has mapped for itself, in the size of a range or of both, is never taken for RAM on
// the word of what is in RAM.
TEST(RamMapTest, AnotherMappingOfASizeThatRamMayHaveIsRefusedUnasked) {
  const std::string apart =
      "7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \n"
      "7f1000000000-7f10c0000000 rw-p 00000000 00:00 0 \n";
  const std::string first = "7f2000000000-7f20c0000000 rw-p 00000000 00:00 0 \n";
  const std::string second = "7f2000000000-7f2040000000 rw-p 00000000 00:00 0 \n";
  const std::string both = "7f2000000000-7f2100000000 rw-p 00000000 00:00 0 \n";
  for (const std::string& text :
       {kMerged + first, kMerged + second, kMerged + both, apart + first, apart + second,
        apart + both, first, second, kMerged + apart, std::string()}) {
    EXPECT_EQ(CodeOf(FindAnonymousRam(Maps(text), kTwoRanges, Nobody)), ErrorCode::kUnsupported)
        << text;
  }
  // Three of one size, two of which are RAM.
  EXPECT_EQ(CodeOf(FindAnonymousRam(Maps(apart + first +
                                         "7f3000000000-7f30c0000000 rw-p "
                                         "00000000 00:00 0 \n"),
                                    {{0, 3072 * kMiB}, {4096 * kMiB, 3072 * kMiB}}, Nobody)),
            ErrorCode::kUnsupported);
  // Merged with a page of something else.
  EXPECT_EQ(CodeOf(FindAnonymousRam(Maps("7f0000000000-7f0100001000 rw-p 00000000 00:00 0 \n"),
                                    kTwoRanges, Nobody)),
            ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf(FindAnonymousRam(Maps(kMerged), {{0, kMiB}, {2 * kMiB, kMiB}, {4 * kMiB, kMiB}},
                                    Nobody)),
            ErrorCode::kUnsupported)
      << "no machine of ours";
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
    EXPECT_EQ(CodeOf(FindAnonymousRam({}, ranges, Nobody)), ErrorCode::kUnsupported);
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

  const auto map = FindRam(vmm.process(), ranges, scratch / "moved");
  ASSERT_OK(map);
  EXPECT_EQ(map->bytes, 4 * kMiB);
  EXPECT_EQ(CodeOf(FindRam(vmm.process(), ranges, scratch / "other")), ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf(FindRam(vmm.process(), ranges, std::nullopt)), ErrorCode::kUnsupported);
}

TEST(RamMapTest, FindsTheAnonymousRamOfARealProcess) {
  const std::vector<GuestRange> ranges = {{0, 37 * kMiB}, {4096 * kMiB, 11 * kMiB}};
  FakeVmm vmm(ranges, std::nullopt, [](const auto&) {});
  ASSERT_OK(FindRam(vmm.process(), ranges, std::nullopt));
  vmm.Kill();
  EXPECT_EQ(CodeOf(FindRam(vmm.process(), ranges, std::nullopt)), ErrorCode::kNotFound);
}

constexpr char kCommandLine[] = "root=/dev/vda rw console=ttyS0";

void PutCommandLine(char* ram) {
  std::memcpy(ram + kCommandLineGpa, kCommandLine, sizeof(kCommandLine));
}

TEST(RamMapTest, FindsTheMergedRamOfARealProcessByItsCommandLine) {
  for (const auto layout : {FakeVmm::Layout::kRising, FakeVmm::Layout::kFalling}) {
    for (const uint64_t second : {11 * kMiB, 37 * kMiB}) {
      const std::vector<GuestRange> ranges = {{0, 37 * kMiB}, {4096 * kMiB, second}};
      const FakeVmm vmm(
          ranges, std::nullopt, [](const auto& ram) { PutCommandLine(ram[0]); }, layout);
      EXPECT_EQ(CodeOf(FindRam(vmm.process(), ranges, std::nullopt)), ErrorCode::kUnsupported)
          << "of a kernel whose command line is not known nothing can be said";
      const std::string begun = std::string(kCommandLine).substr(0, 9);
      EXPECT_EQ(CodeOf(FindRam(vmm.process(), ranges, std::nullopt, begun)),
                ErrorCode::kUnsupported)
          << "it ends where the command line ends";
      const auto map = FindRam(vmm.process(), ranges, std::nullopt, kCommandLine);
      ASSERT_OK(map);
      EXPECT_EQ(vmm.DenseImage(*map).substr(kCommandLineGpa, sizeof(kCommandLine)),
                std::string(kCommandLine, sizeof(kCommandLine)));
      const bool rising = map->segments[0].address < map->segments[1].address;
      EXPECT_EQ(rising, layout == FakeVmm::Layout::kRising);
    }
  }
}

TEST(RamMapTest, ACommandLineThatIsForgedOrOverwrittenIsRefused) {
  const std::vector<GuestRange> ranges = {{0, 37 * kMiB}, {4096 * kMiB, 11 * kMiB}};
  const FakeVmm::Guest guests[] = {
      // Where the guest would start if the ranges lay in the other order.
      [](const std::vector<char*>& ram) {
        PutCommandLine(ram[0]);
        PutCommandLine(ram[0] + 11 * kMiB);
      },
      [](const std::vector<char*>& ram) {
        PutCommandLine(ram[0]);
        ram[0][kCommandLineGpa + 3] = '\0';
      },
      [](const std::vector<char*>&) {},
  };
  for (const auto& guest : guests) {
    const FakeVmm vmm(ranges, std::nullopt, guest, FakeVmm::Layout::kRising);
    EXPECT_EQ(CodeOf(FindRam(vmm.process(), ranges, std::nullopt, kCommandLine)),
              ErrorCode::kUnsupported);
  }
}

}  // namespace
}  // namespace dormouse::memory
