#include "node-agent/memory/pagemap.h"

#include <gtest/gtest.h>

#include "node-agent/memory/test_support.h"
#include "src/common/base/files.h"
#include "src/common/base/units.h"

namespace dormouse::memory {
namespace {

using host::ScratchDirectory;

// The diverged pages of the process's RAM, by their number in the image.
std::vector<uint64_t> DivergedPages(const FakeVmm& vmm, const RamMap& map) {
  const auto pagemap = Pagemap::Open(vmm.process());
  EXPECT_OK(pagemap);
  std::vector<uint64_t> pages;
  for (const RamSegment& segment : map.segments) {
    EXPECT_OK(pagemap->Scan(
        segment.address, segment.length, [&](uint64_t address, uint64_t length) -> Result<> {
          for (uint64_t at = 0; at < length; at += kPageBytes) {
            pages.push_back((segment.file_offset + address - segment.address + at) / kPageBytes);
          }
          return {};
        }));
  }
  return pages;
}

TEST(PagemapTest, APageHasDivergedWhenItIsThereOrSwappedAndNotTheFiles) {
  constexpr uint64_t kPresent = uint64_t{1} << 63;
  constexpr uint64_t kSwapped = uint64_t{1} << 62;
  constexpr uint64_t kFile = uint64_t{1} << 61;
  EXPECT_FALSE(HasDiverged(0));
  EXPECT_FALSE(HasDiverged(kFile));
  EXPECT_FALSE(HasDiverged(kPresent | kFile));
  EXPECT_FALSE(HasDiverged(kSwapped | kFile));
  EXPECT_TRUE(HasDiverged(kPresent));
  EXPECT_TRUE(HasDiverged(kSwapped));
  EXPECT_TRUE(HasDiverged(kSwapped | 0x1234));
}

TEST(PagemapTest, InAMappedFileOnlyWhatWasWrittenHasDiverged) {
  const ScratchDirectory scratch;
  ASSERT_OK(WriteFileAtomically(scratch / "memory", std::string(4 * kMiB, 'm')));
  const std::vector<GuestRange> ranges = {{0, 3 * kMiB}, {4096 * kMiB, kMiB}};
  const FakeVmm vmm(ranges, scratch / "memory", [](const std::vector<char*>& ram) {
    volatile char sum = 0;
    for (uint64_t at = 0; at < 2 * kMiB; at += kPageBytes) {
      sum = static_cast<char>(sum + ram[0][at]);  // read: stays the file's
    }
    ram[0][0] = 'x';
    ram[0][5 * kPageBytes + 17] = 'x';
    ram[0][6 * kPageBytes] = 'm';  // written, if with the same
    ram[1][kMiB - 1] = 'x';
  });
  const auto map = FindRam(vmm.process(), ranges, scratch / "memory");
  ASSERT_OK(map);
  EXPECT_EQ(DivergedPages(vmm, *map), (std::vector<uint64_t>{0, 5, 6, 1023}));
}

TEST(PagemapTest, InAnonymousMemoryWhatWasTouchedCounts) {
  const std::vector<GuestRange> ranges = {{0, 37 * kMiB}};
  const FakeVmm vmm(ranges, std::nullopt, [](const std::vector<char*>& ram) {
    (void)::madvise(ram[0], 37 * kMiB, MADV_NOHUGEPAGE);
    ram[0][3 * kPageBytes] = 'x';
    ram[0][37 * kMiB - 1] = 'x';
  });
  const auto map = FindRam(vmm.process(), ranges, std::nullopt);
  ASSERT_OK(map);
  EXPECT_EQ(DivergedPages(vmm, *map), (std::vector<uint64_t>{3, 37 * 256 - 1}));
}

TEST(PagemapTest, RunsAreTheLongestOverAllBlocks) {
  // More than two of the scan's blocks, so that runs cross their edges.
  const std::vector<GuestRange> ranges = {{0, 300 * kMiB}};
  const FakeVmm vmm(ranges, std::nullopt, [](const std::vector<char*>& ram) {
    (void)::madvise(ram[0], 300 * kMiB, MADV_NOHUGEPAGE);
    for (uint64_t at = 127 * kMiB; at < 129 * kMiB; at += kPageBytes) ram[0][at] = 'x';
    ram[0][256 * kMiB] = 'x';
  });
  const auto map = FindRam(vmm.process(), ranges, std::nullopt);
  ASSERT_OK(map);
  const auto pagemap = Pagemap::Open(vmm.process());
  ASSERT_OK(pagemap);
  const uint64_t base = map->segments.front().address;
  std::vector<std::pair<uint64_t, uint64_t>> runs;
  ASSERT_OK(pagemap->Scan(base, 300 * kMiB, [&](uint64_t address, uint64_t length) -> Result<> {
    runs.emplace_back(address - base, length);
    return {};
  }));
  EXPECT_EQ(runs, (std::vector<std::pair<uint64_t, uint64_t>>{{127 * kMiB, 2 * kMiB},
                                                              {256 * kMiB, kPageBytes}}));
}

TEST(PagemapTest, AFailingRunEndsTheScan) {
  const std::vector<GuestRange> ranges = {{0, 37 * kMiB}};
  const FakeVmm vmm(ranges, std::nullopt, [](const std::vector<char*>& ram) {
    (void)::madvise(ram[0], 37 * kMiB, MADV_NOHUGEPAGE);
    ram[0][0] = ram[0][2 * kPageBytes] = 'x';
  });
  const auto map = FindRam(vmm.process(), ranges, std::nullopt);
  ASSERT_OK(map);
  const auto pagemap = Pagemap::Open(vmm.process());
  ASSERT_OK(pagemap);
  int calls = 0;
  const auto scanned =
      pagemap->Scan(map->segments.front().address, 37 * kMiB, [&](uint64_t, uint64_t) -> Result<> {
        ++calls;
        return Fail(ErrorCode::kNoSpace, "full");
      });
  ASSERT_FALSE(scanned);
  EXPECT_EQ(scanned.error().code(), ErrorCode::kNoSpace);
  EXPECT_EQ(calls, 1);
}

TEST(PagemapTest, AProcessThatDiedIsNoticed) {
  const std::vector<GuestRange> ranges = {{0, 37 * kMiB}};
  FakeVmm vmm(ranges, std::nullopt, [](const auto&) {});
  const auto map = FindRam(vmm.process(), ranges, std::nullopt);
  ASSERT_OK(map);
  const auto pagemap = Pagemap::Open(vmm.process());
  ASSERT_OK(pagemap);
  vmm.Kill();
  const auto scanned = pagemap->Scan(map->segments.front().address, 37 * kMiB,
                                     [](uint64_t, uint64_t) -> Result<> { return {}; });
  ASSERT_FALSE(scanned);
  EXPECT_EQ(scanned.error().code(), ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace dormouse::memory
