#include "node-agent/memory/dump.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cstring>
#include <random>

#include "node-agent/host/sparse_files.h"
#include "node-agent/memory/test_support.h"
#include "src/common/base/files.h"
#include "src/common/base/units.h"

namespace dormouse::memory {
namespace {

using host::FileSizeLimit;
using host::ScratchDirectory;

const std::vector<GuestRange> kRanges = {{0, 24 * kMiB}, {4096 * kMiB, 9 * kMiB}};
constexpr uint64_t kRamBytes = 33 * kMiB;

std::string Content(const std::string& path) {
  return ReadFile(path, 1024 * kMiB).value_or("unreadable");
}

// Pages here and there in both ranges, and a long run; the bytes depend on `seed`.
void Scribble(const std::vector<char*>& ram, unsigned seed) {
  std::minstd_rand random(seed);
  for (size_t i = 0; i < ram.size(); ++i) {
    const uint64_t pages = kRanges[i].length / kPageBytes;
    for (int n = 0; n < 200; ++n) {
      ram[i][(random() % pages) * kPageBytes + random() % kPageBytes] =
          static_cast<char>(random() | 1);
    }
    for (uint64_t at = kMiB; at < 4 * kMiB; at += 512) ram[i][at] = static_cast<char>(random() | 1);
  }
}

// The first dump of a guest that was booted: its RAM is anonymous.
Result<DumpResult> DumpBooted(const FakeVmm& vmm, const std::string& path, RamMap* map) {
  DORMOUSE_ASSIGN(*map, FindRam(vmm.process(), kRanges, std::nullopt));
  DORMOUSE_TRY(MakeMemoryFile(std::nullopt, kRamBytes, path));
  return DumpDiverged(vmm.process(), *map, path);
}

Result<DumpResult> DumpRestored(const FakeVmm& vmm, const std::string& previous,
                                const std::string& path, RamMap* map) {
  DORMOUSE_ASSIGN(*map, FindRam(vmm.process(), kRanges, previous));
  DORMOUSE_TRY(MakeMemoryFile(previous, kRamBytes, path));
  return DumpDiverged(vmm.process(), *map, path);
}

TEST(DumpTest, ABootedGuestsImageIsWhatADenseReadGives) {
  const ScratchDirectory scratch;
  const FakeVmm vmm(kRanges, std::nullopt, [](const auto& ram) { Scribble(ram, 1); });
  RamMap map;
  const auto dumped = DumpBooted(vmm, scratch / "memory", &map);
  ASSERT_OK(dumped);
  EXPECT_TRUE(Content(scratch / "memory") == vmm.DenseImage(map));
  EXPECT_EQ(dumped->scanned_pages, kRamBytes / kPageBytes);
  EXPECT_EQ(dumped->punched_bytes, 0u);
  struct stat info {};
  ASSERT_EQ(::stat((scratch / "memory").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
}

// Compared with what the guest has written, not with what is read where its RAM is said to be.
TEST(DumpTest, TheImageOfMergedRangesIsInTheGuestsOrder) {
  const std::string command_line = "root=/dev/vda rw";
  const auto guest = [&](const std::vector<char*>& ram) {
    Scribble(ram, 8);
    std::memset(ram[0] + kRanges[0].length - 3 * kPageBytes, 'a', 3 * kPageBytes);
    std::memset(ram[1], 'b', 3 * kPageBytes);
    std::memcpy(ram[0] + kCommandLineGpa, command_line.c_str(), command_line.size() + 1);
  };
  std::string expected(kRamBytes, '\0');
  guest({expected.data(), expected.data() + kRanges[0].length});
  for (const auto layout :
       {FakeVmm::Layout::kApart, FakeVmm::Layout::kRising, FakeVmm::Layout::kFalling}) {
    const ScratchDirectory scratch;
    const FakeVmm vmm(kRanges, std::nullopt, guest, layout);
    const auto map = FindRam(vmm.process(), kRanges, std::nullopt, command_line);
    ASSERT_OK(map);
    ASSERT_OK(MakeMemoryFile(std::nullopt, kRamBytes, scratch / "memory"));
    const auto dumped = DumpDiverged(vmm.process(), *map, scratch / "memory");
    ASSERT_OK(dumped);
    EXPECT_TRUE(Content(scratch / "memory") == expected);
    EXPECT_EQ(dumped->scanned_pages, kRamBytes / kPageBytes);
    EXPECT_LT(dumped->written_bytes, kRamBytes / 2) << "what was never touched is not written";
  }
}

// Enough for two lanes, with runs on both sides of the middle and one across it.
TEST(DumpTest, ALargeImageIsWhatADenseReadGives) {
  const ScratchDirectory scratch;
  const FakeVmm vmm(kRanges, std::nullopt, [](const auto& ram) {
    Scribble(ram, 3);
    std::memset(ram[0] + 4 * kMiB, 'a', 19 * kMiB);
    std::memset(ram[1] + 7 * kMiB, 'b', kMiB);
  });
  RamMap map;
  const auto dumped = DumpBooted(vmm, scratch / "memory", &map);
  ASSERT_OK(dumped);
  EXPECT_TRUE(Content(scratch / "memory") == vmm.DenseImage(map));
  EXPECT_GE(dumped->written_bytes, 20 * kMiB);
  uint64_t changed = 0;
  uint64_t end = 0;
  for (const FileRun& run : dumped->changed) {
    EXPECT_TRUE(changed == 0 || run.offset > end) << "in order, neighbours joined";
    changed += run.length;
    end = run.offset + run.length;
  }
  EXPECT_EQ(changed, dumped->diverged_bytes);
}

TEST(DumpTest, HugePagesAreDumpedLikeSmallOnes) {
  const ScratchDirectory scratch;
  const FakeVmm vmm(kRanges, std::nullopt, [](const std::vector<char*>& ram) {
    for (size_t i = 0; i < ram.size(); ++i) {
      (void)::madvise(ram[i], kRanges[i].length, MADV_HUGEPAGE);
    }
    ram[0][5 * kMiB] = ram[1][5 * kMiB] = 'x';
    Scribble(ram, 2);
  });
  RamMap map;
  const auto dumped = DumpBooted(vmm, scratch / "memory", &map);
  ASSERT_OK(dumped);
  EXPECT_TRUE(Content(scratch / "memory") == vmm.DenseImage(map));
  EXPECT_LE(dumped->written_bytes, dumped->diverged_bytes);
}

// The same guest, a moment later: it stands still for what it has changed in between.
TEST(DumpTest, WhatWasWrittenAheadIsNotWrittenAgain) {
  const ScratchDirectory scratch;
  const auto before = [](const std::vector<char*>& ram) {
    for (size_t i = 0; i < ram.size(); ++i)
      (void)::madvise(ram[i], kRanges[i].length, MADV_NOHUGEPAGE);
    Scribble(ram, 3);
    std::memset(ram[0] + 4 * kMiB, 'a', 19 * kMiB);
  };
  const FakeVmm running(kRanges, std::nullopt, before);
  ASSERT_OK(MakeMemoryFile(std::nullopt, kRamBytes, scratch / "memory"));
  const auto ahead = DumpAhead(
      running.process(), *FindRam(running.process(), kRanges, std::nullopt), scratch / "memory");
  ASSERT_OK(ahead);
  EXPECT_GT(*ahead, 20 * kMiB);
  const FakeVmm paused(kRanges, std::nullopt, [&](const std::vector<char*>& ram) {
    before(ram);
    ram[0][6 * kMiB + 5] = 'b';
    std::memset(ram[0] + 8 * kMiB, 0, 2 * kMiB);                   // zero now
    (void)::madvise(ram[0] + 12 * kMiB, 3 * kMiB, MADV_DONTNEED);  // given back
    (void)::madvise(ram[1], kRanges[1].length, MADV_DONTNEED);     // to its end
    ram[0][20 * kMiB] = 'c';
  });
  const auto map = FindRam(paused.process(), kRanges, std::nullopt);
  ASSERT_OK(map);
  const auto dumped = DumpDiverged(paused.process(), *map, scratch / "memory");
  ASSERT_OK(dumped);
  EXPECT_EQ(dumped->written_bytes, 2 * kPageBytes);
  EXPECT_GE(dumped->punched_bytes, 5 * kMiB);
  EXPECT_TRUE(Content(scratch / "memory") == paused.DenseImage(*map));
}

TEST(DumpTest, WhateverWasWrittenAheadTheImageIsTheGuests) {
  const ScratchDirectory scratch;
  const FakeVmm vmm(kRanges, std::nullopt, [](const auto& ram) { Scribble(ram, 5); });
  const auto map = FindRam(vmm.process(), kRanges, std::nullopt);
  ASSERT_OK(map);
  ASSERT_OK(WriteFileAtomically(scratch / "memory", std::string(kRamBytes, 'x')));
  ASSERT_OK(DumpDiverged(vmm.process(), *map, scratch / "memory"));
  EXPECT_TRUE(Content(scratch / "memory") == vmm.DenseImage(*map));
  const FakeVmm untouched(kRanges, std::nullopt, [](const auto&) {});
  ASSERT_OK(DumpDiverged(untouched.process(), *FindRam(untouched.process(), kRanges, std::nullopt),
                         scratch / "memory"));
  EXPECT_TRUE(Content(scratch / "memory") == std::string(kRamBytes, '\0'));
}

TEST(DumpTest, AheadOnAFullDiskLeavesAnEmptyFile) {
  const ScratchDirectory scratch;
  const FakeVmm vmm(kRanges, std::nullopt, [](const auto& ram) { Scribble(ram, 5); });
  const auto map = FindRam(vmm.process(), kRanges, std::nullopt);
  ASSERT_OK(map);
  ASSERT_OK(MakeMemoryFile(std::nullopt, kRamBytes, scratch / "memory"));
  {
    const FileSizeLimit full(16 * kMiB);
    EXPECT_FALSE(DumpAhead(vmm.process(), *map, scratch / "memory"));
  }
  EXPECT_EQ(*host::AllocatedBytes(scratch / "memory"), 0u);
  EXPECT_EQ(*host::SizeBytes(scratch / "memory"), kRamBytes);
}

TEST(DumpTest, PagesOfZerosStayHolesInANewFile) {
  const ScratchDirectory scratch;
  const FakeVmm vmm(kRanges, std::nullopt, [](const std::vector<char*>& ram) {
    (void)::madvise(ram[0], kRanges[0].length, MADV_NOHUGEPAGE);
    std::memset(ram[0], 0, 8 * kMiB);  // touched, and zero
    ram[0][2 * kMiB + 77] = 'x';
    ram[0][2 * kMiB + kPageBytes - 1] = 'x';
  });
  RamMap map;
  const auto dumped = DumpBooted(vmm, scratch / "memory", &map);
  ASSERT_OK(dumped);
  EXPECT_EQ(dumped->diverged_bytes, 8 * kMiB);
  EXPECT_EQ(dumped->written_bytes, kPageBytes);
  EXPECT_EQ(dumped->punched_bytes, 0u);
  EXPECT_TRUE(Content(scratch / "memory") == vmm.DenseImage(map));
  EXPECT_LE(*host::AllocatedBytes(scratch / "memory"), 16 * kPageBytes);
}

TEST(DumpTest, ARestoredGuestWritesOnlyWhatDiverged) {
  const ScratchDirectory scratch;
  RamMap map;
  {
    const FakeVmm booted(kRanges, std::nullopt, [](const auto& ram) { Scribble(ram, 3); });
    ASSERT_OK(DumpBooted(booted, scratch / "1", &map));
  }
  const std::string first = Content(scratch / "1");
  const FakeVmm restored(kRanges, scratch / "1", [](const std::vector<char*>& ram) {
    ram[0][0] = 'a';
    std::memset(ram[0] + 10 * kPageBytes, 'b', 3 * kPageBytes);
    ram[1][9 * kMiB - 1] = 'c';
  });
  const auto dumped = DumpRestored(restored, scratch / "1", scratch / "2", &map);
  ASSERT_OK(dumped);
  EXPECT_TRUE(Content(scratch / "2") == restored.DenseImage(map));
  EXPECT_TRUE(Content(scratch / "1") == first) << "a committed memory file is never written again";
  EXPECT_EQ(dumped->diverged_bytes, 5 * kPageBytes);
  EXPECT_EQ(dumped->written_bytes, 5 * kPageBytes);
  EXPECT_EQ(dumped->changed, (std::vector<FileRun>{{0, kPageBytes},
                                                   {10 * kPageBytes, 3 * kPageBytes},
                                                   {kRamBytes - kPageBytes, kPageBytes}}));
}

TEST(DumpTest, OverTheFileItselfTheGuestSeesNothingOfIt) {
  const ScratchDirectory scratch;
  RamMap map;
  {
    const FakeVmm booted(kRanges, std::nullopt, [](const auto& ram) { Scribble(ram, 3); });
    ASSERT_OK(DumpBooted(booted, scratch / "1", &map));
  }
  const FakeVmm restored(kRanges, scratch / "1", [](const std::vector<char*>& ram) {
    Scribble(ram, 4);
    std::memset(ram[0] + kMiB, 0, kMiB);  // data in the file: a hole from now on
  });
  const auto found = FindRam(restored.process(), kRanges, scratch / "1");
  ASSERT_OK(found);
  const std::string seen = restored.DenseImage(*found);
  ASSERT_OK(ContinueMemoryFile(scratch / "1", kRamBytes, scratch / "2"));
  ASSERT_OK(DumpDiverged(restored.process(), *found, scratch / "2"));
  EXPECT_TRUE(Content(scratch / "2") == seen);
  EXPECT_TRUE(restored.DenseImage(*found) == seen) << "it may have to go on";
  // Once more, as after a capture that failed later; by its old name, too, it is found.
  ASSERT_OK(RemoveFile(scratch / "2"));
  ASSERT_OK(ContinueMemoryFile(scratch / "1", kRamBytes, scratch / "2"));
  const auto again = DumpDiverged(restored.process(), *found, scratch / "2");
  ASSERT_OK(again);
  EXPECT_GT(again->diverged_bytes, 0u);
  EXPECT_TRUE(Content(scratch / "2") == seen);
  const FakeVmm next(kRanges, scratch / "2", [](const auto&) {});
  ASSERT_OK(FindRam(next.process(), kRanges, scratch / "2"));
  EXPECT_TRUE(next.DenseImage(*FindRam(next.process(), kRanges, scratch / "2")) == seen);
}

// A limit on the size of files stands for a disk that is full: it fails in the middle.
TEST(DumpTest, OverTheFileItselfAFailureInTheMiddleHarmsNoGuest) {
  const ScratchDirectory scratch;
  RamMap map;
  {
    const FakeVmm booted(kRanges, std::nullopt, [](const auto& ram) { Scribble(ram, 3); });
    ASSERT_OK(DumpBooted(booted, scratch / "1", &map));
  }
  const FakeVmm restored(kRanges, scratch / "1", [](const auto& ram) { Scribble(ram, 4); });
  const auto found = FindRam(restored.process(), kRanges, scratch / "1");
  ASSERT_OK(found);
  const std::string seen = restored.DenseImage(*found);
  const uint64_t before = *host::AllocatedBytes(scratch / "1");
  ASSERT_OK(ContinueMemoryFile(scratch / "1", kRamBytes, scratch / "2"));
  {
    const FileSizeLimit limit(12 * kMiB);
    EXPECT_FALSE(DumpDiverged(restored.process(), *found, scratch / "2"));
  }
  EXPECT_LE(*host::AllocatedBytes(scratch / "1"), before) << "others may need the room";
  EXPECT_FALSE(Content(scratch / "2") == seen) << "nothing failed";
  EXPECT_TRUE(restored.DenseImage(*found) == seen);
  ASSERT_OK(DumpDiverged(restored.process(), *found, scratch / "2"));
  EXPECT_TRUE(Content(scratch / "2") == seen);
}

TEST(DumpTest, WhatBecameZeroBecomesAHoleWhereThereWasData) {
  const ScratchDirectory scratch;
  std::string image(kRamBytes, '\0');
  std::memset(image.data() + kMiB, 'd', kMiB);
  std::memset(image.data() + 30 * kMiB, 'd', kMiB);
  ASSERT_OK(WriteFileAtomically(scratch / "dense", image));
  ASSERT_OK(host::CopySparse(scratch / "dense", scratch / "1"));
  const FakeVmm vmm(kRanges, scratch / "1", [](const std::vector<char*>& ram) {
    std::memset(ram[0] + kMiB + 16 * kPageBytes, 0, 4 * kPageBytes);
    ram[0][kMiB + 18 * kPageBytes] = 'x';
    std::memset(ram[1] + 6 * kMiB, 0, kMiB);
    ram[1][6 * kMiB - 1] = 'x';
  });
  RamMap map;
  const auto dumped = DumpRestored(vmm, scratch / "1", scratch / "2", &map);
  ASSERT_OK(dumped);
  EXPECT_TRUE(Content(scratch / "2") == vmm.DenseImage(map));
  EXPECT_EQ(dumped->punched_bytes, 3 * kPageBytes + kMiB);
  EXPECT_EQ(dumped->written_bytes, 2 * kPageBytes);
  EXPECT_EQ(dumped->diverged_bytes, 5 * kPageBytes + kMiB);
}

TEST(DumpTest, ManyGenerationsAndClonesOfOneFileStayTrue) {
  const ScratchDirectory scratch;
  RamMap map;
  {
    const FakeVmm booted(kRanges, std::nullopt, [](const auto& ram) { Scribble(ram, 4); });
    ASSERT_OK(DumpBooted(booted, scratch / "0", &map));
  }
  for (unsigned generation = 1; generation <= 6; ++generation) {
    const std::string previous = scratch / std::to_string(generation - 1);
    const std::string next = scratch / std::to_string(generation);
    const auto guest = [generation](const std::vector<char*>& ram) {
      Scribble(ram, 10 + generation);
      std::memset(ram[generation % 2] + generation * kMiB, 0, kMiB);
    };
    const FakeVmm vmm(kRanges, previous, guest);
    const FakeVmm other(kRanges, previous, [](const auto& ram) { Scribble(ram, 99); });
    ASSERT_OK(DumpRestored(vmm, previous, next, &map));
    ASSERT_TRUE(Content(next) == vmm.DenseImage(map)) << generation;
  }
}

TEST(DumpTest, AFileThatIsNotTheRamsIsRefused) {
  const ScratchDirectory scratch;
  const FakeVmm vmm(kRanges, std::nullopt, [](const auto& ram) { Scribble(ram, 5); });
  const auto map = FindRam(vmm.process(), kRanges, std::nullopt);
  ASSERT_OK(map);
  ASSERT_OK(MakeMemoryFile(std::nullopt, kRamBytes - kPageBytes, scratch / "short"));
  const auto dumped = DumpDiverged(vmm.process(), *map, scratch / "short");
  ASSERT_FALSE(dumped);
  EXPECT_EQ(dumped.error().code(), ErrorCode::kInvalid);
  const auto cut = MakeMemoryFile(scratch / "short", kRamBytes, scratch / "2");
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code(), ErrorCode::kCorrupt);
  const auto there = MakeMemoryFile(std::nullopt, kRamBytes, scratch / "short");
  ASSERT_FALSE(there);
  EXPECT_EQ(there.error().code(), ErrorCode::kAlreadyExists);
}

TEST(DumpTest, AProcessThatDiedFailsTheDump) {
  const ScratchDirectory scratch;
  FakeVmm vmm(kRanges, std::nullopt, [](const auto& ram) { Scribble(ram, 6); });
  const auto map = FindRam(vmm.process(), kRanges, std::nullopt);
  ASSERT_OK(map);
  ASSERT_OK(MakeMemoryFile(std::nullopt, kRamBytes, scratch / "memory"));
  vmm.Kill();
  const auto dumped = DumpDiverged(vmm.process(), *map, scratch / "memory");
  ASSERT_FALSE(dumped);
  EXPECT_EQ(dumped.error().code(), ErrorCode::kNotFound);
}

// A file system of its own, in a mount namespace that ends with this process.
class FileSystemTest : public ::testing::TestWithParam<const char*> {
 protected:
  void Mount(const std::vector<std::string>& make, const char* type, const std::string& options) {
    if (!host::IsRoot()) GTEST_SKIP() << "mounting needs root";
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      GTEST_SKIP() << "no mount namespace: " << std::strerror(errno);
    }
    const std::string image = scratch_ / "image";
    ASSERT_OK(MakeMemoryFile(std::nullopt, 400 * kMiB, image));
    ASSERT_OK(MakeDirectories(directory()));
    std::vector<std::string> command = make;
    command.push_back(image);
    if (std::string_view(type) != "tmpfs" && Run(command) != 0)
      GTEST_SKIP() << make[0] << " cannot";
    const std::string source = std::string_view(type) == "tmpfs" ? "none" : image;
    if (Run({"mount", "-t", type, "-o", options, source, directory()}) != 0) {
      GTEST_SKIP() << "no mount of " << type << " over a loop device here";
    }
    mounted_ = true;
  }
  void TearDown() override {
    if (mounted_) (void)::umount2(directory().c_str(), MNT_DETACH);
  }
  [[nodiscard]] std::string directory() const { return scratch_ / "mnt"; }

  static int Run(const std::vector<std::string>& command) {
    std::vector<char*> arguments;
    for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    for (const int fd : {1, 2}) {
      posix_spawn_file_actions_addopen(&quiet, fd, "/dev/null", O_WRONLY, 0);
    }
    pid_t pid = 0;
    const int spawned =
        ::posix_spawnp(&pid, arguments[0], &quiet, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&quiet);
    int status = -1;
    if (spawned == 0) (void)::waitpid(pid, &status, 0);
    return status;
  }

  ScratchDirectory scratch_;
  bool mounted_ = false;
};

class ReflinkDumpTest : public FileSystemTest {};

TEST_P(ReflinkDumpTest, CostsWhatDivergedAndLeavesThePreviousImage) {
  const std::string type = GetParam();
  const std::vector<std::string> make =
      type == "xfs" ? std::vector<std::string>{"mkfs.xfs", "-q", "-m", "reflink=1"}
                    : std::vector<std::string>{"mkfs.btrfs", "-q"};
  ASSERT_NO_FATAL_FAILURE(Mount(make, type.c_str(), "loop"));
  if (IsSkipped()) return;
  std::string image(kRamBytes, 'i');
  ASSERT_OK(WriteFileAtomically(directory() + "/1", image));
  const FakeVmm vmm(kRanges, directory() + "/1", [](const std::vector<char*>& ram) {
    ram[0][7 * kPageBytes] = 'x';
    std::memset(ram[1], 0, 64 * kPageBytes);
  });
  const uint64_t before = host::SpaceOf(directory())->available_bytes;
  RamMap map;
  const auto found = FindRam(vmm.process(), kRanges, directory() + "/1");
  ASSERT_OK(found) << "the file's mapping must be known by its identity on " << type;
  const auto shared = MakeMemoryFile(directory() + "/1", kRamBytes, directory() + "/2");
  ASSERT_OK(shared);
  EXPECT_TRUE(*shared);
  const auto dumped = DumpDiverged(vmm.process(), *found, directory() + "/2");
  ASSERT_OK(dumped);
  ASSERT_OK(SyncFile(directory() + "/2"));

  EXPECT_TRUE(Content(directory() + "/2") == vmm.DenseImage(*found));
  EXPECT_TRUE(Content(directory() + "/1") == image);
  EXPECT_EQ(dumped->written_bytes, kPageBytes);
  EXPECT_EQ(dumped->punched_bytes, 64 * kPageBytes);
  EXPECT_LT(before - host::SpaceOf(directory())->available_bytes, 4 * kMiB);
}
INSTANTIATE_TEST_SUITE_P(FileSystems, ReflinkDumpTest, ::testing::Values("xfs", "btrfs"));

TEST_F(FileSystemTest, AFullDiskSaysNoSpace) {
  ASSERT_NO_FATAL_FAILURE(Mount({}, "tmpfs", "size=1m"));
  if (IsSkipped()) return;
  const FakeVmm vmm(kRanges, std::nullopt, [](const auto& ram) { Scribble(ram, 7); });
  RamMap map;
  const auto dumped = DumpBooted(vmm, directory() + "/memory", &map);
  ASSERT_FALSE(dumped);
  EXPECT_EQ(dumped.error().code(), ErrorCode::kNoSpace) << dumped.error().message();
}

}  // namespace
}  // namespace dormouse::memory
