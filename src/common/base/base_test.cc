#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "src/common/base/clock.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/files.h"
#include "src/common/base/hash.h"
#include "src/common/base/json_text.h"
#include "src/common/base/result.h"
#include "src/common/base/sealed_json.h"
#include "src/common/base/time.h"
#include "src/common/base/utf8.h"

namespace dormouse {
namespace {

class TempDir {
 public:
  explicit TempDir(const std::string& below = "/tmp") : path_(below + "/dormouse-test-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~TempDir() { (void)RemoveTree(path_); }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

TEST(ErrorTest, SaysWhatFailedAndWhatTheSystemAnswered) {
  const Error error =
      Error::FromErrno("table load", ENOSPC).Wrap("create snapshot dormouse-3f2a-root");
  EXPECT_EQ(error.message(),
            "create snapshot dormouse-3f2a-root: table load: ENOSPC (No space left on device)");
  EXPECT_EQ(error.code(), ErrorCode::kNoSpace);
  EXPECT_EQ(error.errnum(), ENOSPC);
  EXPECT_TRUE(error.IsRetryable());
}

TEST(ErrorTest, AWrongRequestIsNotTriedAgain) {
  EXPECT_FALSE(Error(ErrorCode::kInvalid, "x").IsRetryable());
  EXPECT_FALSE(Error(ErrorCode::kCorrupt, "x").IsRetryable());
}

TEST(FilesTest, AnAtomicWriteReplacesTheContentAndLeavesNoTemporary) {
  TempDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir / "record.json", "old"));
  ASSERT_TRUE(WriteFileAtomically(dir / "record.json", "new"));
  EXPECT_EQ(*ReadFile(dir / "record.json", 100), "new");
  EXPECT_EQ(ListDirectory(dir / "")->size(), 1u);
}

TEST(FilesTest, AReadIsBounded) {
  TempDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir / "f", "12345"));
  EXPECT_EQ(ReadFile(dir / "f", 4).error().code(), ErrorCode::kInvalid);
  EXPECT_EQ(ReadFile(dir / "none", 4).error().code(), ErrorCode::kNotFound);
}

TEST(FilesTest, RemovingATreeFollowsNoSymlink) {
  TempDir dir;
  ASSERT_TRUE(MakeDirectories(dir / "keep"));
  ASSERT_TRUE(WriteFileAtomically(dir / "keep/file", "x"));
  ASSERT_TRUE(MakeDirectories(dir / "tree/sub"));
  ASSERT_EQ(::symlink((dir / "keep").c_str(), (dir / "tree/sub/link").c_str()), 0);
  ASSERT_TRUE(RemoveTree(dir / "tree"));
  EXPECT_FALSE(PathExists(dir / "tree"));
  EXPECT_TRUE(PathExists(dir / "keep/file"));
  EXPECT_TRUE(RemoveTree(dir / "tree")) << "a second removal is success";
}

// "base/<name>/<name>/...", made from the end so that no path is long.
void MakeDeep(const std::string& base, int levels, const std::string& name) {
  ASSERT_TRUE(MakeDirectories(base + "/" + name));
  for (int level = 1; level < levels; ++level) {
    ASSERT_EQ(::mkdir((base + "/outer").c_str(), 0700), 0);
    ASSERT_EQ(::rename((base + "/" + name).c_str(), (base + "/outer/" + name).c_str()), 0);
    ASSERT_EQ(::rename((base + "/outer").c_str(), (base + "/" + name).c_str()), 0);
  }
}

// In memory where there is such a place: thousands of directories take their time on a disk.
std::string Fast() {
  return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

// As long as a name may be.
std::string LongName(int number) {
  std::string name = std::to_string(number);
  return name + std::string(255 - name.size(), 'n');
}

TEST(FilesTest, ATreeOfAnyDepthIsRemoved) {
  TempDir dir(Fast());
  // A removal that recurses overflows its stack of 8 MiB before the 20,000th level.
  MakeDeep(dir / "tree", 30'000, "d");
  MakeDeep(dir / "tree/long", 200, LongName(0));
  ASSERT_TRUE(RemoveTree(dir / "tree"));
  EXPECT_FALSE(PathExists(dir / "tree"));
}

TEST(FilesTest, ATreeIsRemovedWhateverItsNamesAre) {
  TempDir dir(Fast());
  // Names that the removal itself would use; tmpfs lists what is made later first.
  for (int i = 0; i < 30; ++i) {
    const std::string taken = dir / ("tree/.removed-" + std::to_string(i));
    ASSERT_TRUE(MakeDirectories(i % 3 == 2 ? taken + "/sub" : dir / "tree"));
    if (i % 3 == 0) {
      ASSERT_TRUE(WriteFileAtomically(taken, "x"));
    }
  }
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(MakeDirectories(dir / ("tree/a/" + LongName(i) + "/b/c")));
    ASSERT_TRUE(WriteFileAtomically(dir / ("tree/a/" + LongName(i) + "/b/file"), "x"));
  }
  ASSERT_TRUE(RemoveTree(dir / "tree"));
  EXPECT_FALSE(PathExists(dir / "tree"));
}

TEST(FilesTest, AnEmptiedDirectoryStaysAndIsOurs) {
  TempDir dir;
  ASSERT_TRUE(MakeDirectories(dir / "top/a/b/c"));
  ASSERT_EQ(::chmod((dir / "top").c_str(), 0777), 0);
  ASSERT_TRUE(EmptyDirectory(dir / "top"));
  EXPECT_EQ(ListDirectory(dir / "top"), std::vector<std::string>());
  struct stat info {};
  ASSERT_EQ(::stat((dir / "top").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
  EXPECT_TRUE(EmptyDirectory(dir / "nowhere"));
  ASSERT_EQ(::symlink((dir / "top").c_str(), (dir / "link").c_str()), 0);
  EXPECT_FALSE(EmptyDirectory(dir / "link"));
}

TEST(FilesTest, WhatIsMountedInATreeIsNotEnteredAndSaid) {
  TempDir dir;
  ASSERT_TRUE(MakeDirectories(dir / "tree/a/mounted"));
  ASSERT_TRUE(MakeDirectories(dir / "other"));
  ASSERT_TRUE(WriteFileAtomically(dir / "other/file", "x"));
  const std::string at = dir / "tree/a/mounted";
  // Of the same file system, so that only the mount tells.
  if (::mount((dir / "other").c_str(), at.c_str(), nullptr, MS_BIND, nullptr) != 0)
    GTEST_SKIP() << "mounting needs root";
  for (const std::string& tree : {at, dir / "tree"}) {
    const auto removed = RemoveTree(tree);
    ASSERT_FALSE(removed) << tree;
    EXPECT_EQ(removed.error().code(), ErrorCode::kBusy) << tree;
    EXPECT_NE(removed.error().message().find("mounted"), std::string::npos);
  }
  EXPECT_TRUE(PathExists(dir / "other/file"));
  ASSERT_EQ(::umount2(at.c_str(), MNT_DETACH), 0);
  EXPECT_TRUE(RemoveTree(dir / "tree"));
}

TEST(FilesTest, WhoFillsATreeMeanwhileDoesNotHoldUpItsRemoval) {
  if (::geteuid() != 0) GTEST_SKIP() << "another user is needed, and only root can be one";
  TempDir dir;
  ASSERT_EQ(::chmod((dir / "").c_str(), 0755), 0);
  ASSERT_TRUE(MakeDirectories(dir / "tree/theirs"));
  ASSERT_EQ(::chown((dir / "tree/theirs").c_str(), 4242, 4242), 0);
  ASSERT_EQ(::chown((dir / "tree").c_str(), 4242, 4242), 0);
  int made[2];
  ASSERT_EQ(::pipe(made), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const int fd = ::open((dir / "tree/theirs").c_str(), O_RDONLY | O_DIRECTORY);
    if (fd < 0 || ::setgid(4242) != 0 || ::setuid(4242) != 0 ||
        ::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
      ::_exit(1);
    }
    for (unsigned i = 0;; ++i) {
      if (::mkdirat(fd, std::to_string(i).c_str(), 0700) != 0 && errno != EEXIST) break;
      if (i == 100) (void)!::write(made[1], "x", 1);
    }
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(made[0], &byte, 1), 1);
  EXPECT_TRUE(RemoveTree(dir / "tree"));
  EXPECT_FALSE(PathExists(dir / "tree"));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "it was refused in the end";
  ::close(made[0]);
  ::close(made[1]);
}

TEST(FailpointTest, ErrorsAreCountedDownAndConfinedToASubject) {
  ASSERT_TRUE(failpoint::Arm("dm.load@ns/a=1*error(EBUSY)->1*error(ENOSPC)"));
  EXPECT_TRUE(failpoint::Hit("dm.load", "ns/b"));
  EXPECT_EQ(failpoint::Hit("dm.load", "ns/a").error().errnum(), EBUSY);
  EXPECT_EQ(failpoint::Hit("dm.load", "ns/a").error().errnum(), ENOSPC);
  EXPECT_TRUE(failpoint::Hit("dm.load", "ns/a"));
  failpoint::DisarmAll();
}

TEST(FailpointTest, KillEndsTheProcess) {
  EXPECT_EXIT(
      {
        (void)failpoint::Arm("x=kill");
        (void)failpoint::Hit("x");
      },
      ::testing::KilledBySignal(SIGKILL), "");
}

TEST(FailpointTest, AMalformedEntryIsNamed) {
  const auto armed = failpoint::Arm("good=kill;bad");
  ASSERT_FALSE(armed);
  EXPECT_NE(armed.error().message().find("\"bad\""), std::string::npos);
}

TEST(HashTest, DigestsAreThoseOfSha256sum) {
  EXPECT_EQ(Sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(ShortId("abc"), "ba7816bf8f01");
  TempDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir / "f", "abc"));
  EXPECT_EQ(*Sha256OfFile(dir / "f"), Sha256("abc"));
}

TEST(TimeTest, RoundTripsTheApisForms) {
  const auto time = ParseTime("2026-11-21T08:30:00Z");
  ASSERT_TRUE(time);
  EXPECT_EQ(FormatTime(*time), "2026-11-21T08:30:00Z");
  EXPECT_EQ(FormatMicroTime(*ParseTime("2026-11-21T08:30:00.123456Z")),
            "2026-11-21T08:30:00.123456Z");
  EXPECT_EQ(ParseTime("2026-11-21T10:30:00+02:00"), time);
  EXPECT_FALSE(ParseTime("4052-01-01T00:00:00Z")) << "it would wrap to another century";
  for (const char* bad :
       {"", "2026-11-21", "2026-13-21T08:30:00Z", "2026-11-21T08:30:00", "2026-02-30T00:00:00Z",
        "2026-11-21T-0:30:00Z", "2026-11-21T08:30:00+24:00", "1680-01-01T00:00:00+01:00",
        "2260-12-31T23:59:60Z"}) {
    EXPECT_FALSE(ParseTime(bad)) << bad;
  }
}

TEST(TimeTest, ReadsGoDurations) {
  using namespace std::chrono_literals;
  EXPECT_EQ(ParseDuration("1h30m"), 90min);
  EXPECT_EQ(ParseDuration("1.5s"), 1500ms);
  EXPECT_EQ(ParseDuration("0s"), 0s);
  for (const char* bad : {"", "5", "m", "-5m", "1d", "1h-2m", "99999999999h"})
    EXPECT_FALSE(ParseDuration(bad)) << bad;
}

TEST(FakeClockTest, MovesOnlyWhenItIsMoved) {
  FakeClock clock;
  const auto before = clock.Now();
  clock.Advance(std::chrono::seconds(5));
  EXPECT_EQ(clock.Now() - before, std::chrono::seconds(5));
  EXPECT_EQ(FormatTime(clock.WallNow()), "2026-01-01T00:00:05Z");
}

TEST(HashTest, ADigestIsToldByItsForm) {
  EXPECT_TRUE(IsSha256(Sha256("x")));
  EXPECT_FALSE(IsSha256(Sha256("x").substr(1)));
  EXPECT_FALSE(IsSha256(std::string(64, 'A')));
}

TEST(Utf8Test, OnlyCharactersHaveALength) {
  EXPECT_EQ(Utf8Length("a\xc3"), 1u);
  EXPECT_EQ(Utf8Length("\xc3\xa9!"), 2u);
  EXPECT_EQ(Utf8Length("\xe2\x82\xac"), 3u);
  EXPECT_EQ(Utf8Length("\xf0\x9f\x90\xad"), 4u);
  for (const char* bad : {"\x80", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                          "\xe2\x82", "\xff"}) {
    EXPECT_EQ(Utf8Length(bad), 0u);
  }
}

TEST(JsonTextTest, WhatIsNoUtf8IsReplacedAndNeverThrows) {
  const nlohmann::json value = {{"a\xff", "b\xc3(\x80"}};
  EXPECT_EQ(JsonText(value), "{\"a\xef\xbf\xbd\":\"b\xef\xbf\xbd(\xef\xbf\xbd\"}");
  EXPECT_EQ(JsonText(nlohmann::ordered_json{{"b", 1}, {"a", 2}}, 1), "{\n \"b\": 1,\n \"a\": 2\n}");
}

TEST(SealedJsonTest, WhatIsNotAsItWasWrittenIsTold) {
  const Seal seal{"thing", 3};
  const std::string text = SealJson(seal, {{"a", 1}});
  int read = 0;
  ASSERT_TRUE(OpenSealedJson(seal, text,
                             [&](const auto& value) { read = value.at("a").template get<int>(); }));
  EXPECT_EQ(read, 1);
  const auto refused = [&](const Seal& other, std::string changed) {
    return OpenSealedJson(other, changed, [](const auto&) {}).error();
  };
  std::string flipped = text;
  flipped.replace(flipped.find("\"a\":1"), 5, "\"a\":2");
  EXPECT_EQ(refused(seal, flipped).message(), "thing does not match its checksum");
  EXPECT_EQ(refused(seal, text.substr(1)).code(), ErrorCode::kCorrupt);
}

TEST(SealedJsonTest, WhatANewerProgramWroteIsReadWhereWeMayWriteIt) {
  const auto code = [](const Seal& wrote, const Seal& reads) {
    const auto opened = OpenSealedJson(reads, SealJson(wrote, {{"a", 1}}), [](const auto&) {});
    return opened ? std::nullopt : std::optional(opened.error().code());
  };
  EXPECT_EQ(code({"thing", 4}, {"thing", 3}), std::nullopt);
  EXPECT_EQ(code({"thing", 3}, {"thing", 4}), std::nullopt) << "an older one";
  EXPECT_EQ(code({"thing", 4, 3}, {"thing", 3}), std::nullopt);
  EXPECT_EQ(code({"thing", 4, 4}, {"thing", 3}), ErrorCode::kUnsupported);
  // Of programs that did not name the oldest writer yet, nobody but they could write.
  const auto old = OpenSealedJson({"thing", 1}, R"({"version":2})", [](const auto&) {});
  EXPECT_EQ(old.error().code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace dormouse
