// What somebody hostile can put where we open a file: each must be refused at once.
#include "node-agent/host/beneath.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <optional>

#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"
#include "src/common/base/units.h"

namespace dormouse::host {
namespace {

const uid_t kOwn = ::geteuid();
constexpr uint64_t kMost = 1024;

class BeneathTest : public ::testing::Test {
 protected:
  BeneathTest() {
    EXPECT_OK(MakeDirectories(scratch_ / "theirs"));
    EXPECT_OK(WriteFileAtomically(scratch_ / "secret", "another's"));
    directory_.emplace(Directory::Open(scratch_ / "theirs").value());
  }
  [[nodiscard]] std::string In(const std::string& name) const { return directory_->Shown(name); }
  [[nodiscard]] Result<std::string> Read(const std::string& name) const {
    return ReadBeneath(*directory_, name, {kOwn, kMost});
  }
  // By no way that there is, and at once.
  void ExpectRefused(const std::string& name) const {
    EXPECT_EQ(Read(name).error().code(), ErrorCode::kCorrupt) << name;
    for (const int access : {O_RDONLY, O_RDWR}) {
      EXPECT_EQ(OpenBeneath(*directory_, name, access, {kOwn, kMost}).error().code(),
                ErrorCode::kCorrupt)
          << name;
    }
    const std::string copy = scratch_ / "copy";
    EXPECT_EQ(CopyBeneath(*directory_, name, {kOwn, kMost}, copy).error().code(),
              ErrorCode::kCorrupt)
        << name;
    EXPECT_FALSE(PathExists(copy)) << name;
  }

  const ScratchDirectory scratch_;
  std::optional<Directory> directory_;
};

TEST_F(BeneathTest, AFileThatIsAsExpectedIsReadAndCopied) {
  ASSERT_OK(WriteFileAtomically(In("config"), "text"));
  EXPECT_EQ(Read("config").value(), "text");
  ASSERT_OK(CopyBeneath(*directory_, "config", {kOwn, 4, 4}, scratch_ / "copy"));
  // The file is its maker's still: what they write to it is not in the copy.
  const UniqueFd held = OpenFile(In("config"), O_WRONLY).value();
  ASSERT_OK(WriteAll(held.get(), "TEXT"));
  EXPECT_EQ(ReadFile(scratch_ / "copy", kMost).value(), "text");
  EXPECT_EQ(Read("nothing").error().code(), ErrorCode::kNotFound);
}

TEST_F(BeneathTest, NoLinkIsFollowed) {
  ASSERT_EQ(::symlink((scratch_ / "secret").c_str(), In("link").c_str()), 0);
  ASSERT_EQ(::symlink("/proc/self/fd/0", In("magic").c_str()), 0);
  ASSERT_EQ(::symlink(scratch_.path().c_str(), In("directory").c_str()), 0);
  ASSERT_EQ(::link((scratch_ / "secret").c_str(), In("hard").c_str()), 0);
  ASSERT_OK(WriteFileAtomically(In("own"), "x"));
  ASSERT_EQ(::symlink("own", In("near").c_str()), 0);
  for (const char* name : {"link", "magic", "directory/secret", "../secret", "hard", "near"})
    ExpectRefused(name);
  EXPECT_EQ(LookUp(*directory_, "link").error().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(directory_->OpenBeneath("directory", kOwn).error().code(), ErrorCode::kCorrupt);
  EXPECT_FALSE(Directory::Open(In("directory")));
}

TEST_F(BeneathTest, WhatIsNoFileIsNotOpened) {
  ASSERT_EQ(::mkfifo(In("fifo").c_str(), 0600), 0);
  ASSERT_OK(MakeDirectories(In("directory")));
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  In("socket").copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
            0);
  for (const char* name : {"fifo", "directory", "socket"}) ExpectRefused(name);
  EXPECT_OK(LookUp(*directory_, "socket"));
  if (::mknod(In("null").c_str(), S_IFCHR | 0600, ::makedev(1, 3)) == 0) ExpectRefused("null");
}

TEST_F(BeneathTest, AFileOfAnotherSizeOrOwnerIsRefused) {
  ASSERT_OK(WriteFileAtomically(In("terabyte"), ""));
  ASSERT_EQ(::truncate(In("terabyte").c_str(), off_t{1} << 40), 0);
  ExpectRefused("terabyte");
  ASSERT_OK(WriteFileAtomically(In("short"), "x"));
  EXPECT_EQ(CopyBeneath(*directory_, "short", {kOwn, kMost, 2}, scratch_ / "copy").error().code(),
            ErrorCode::kCorrupt);
  EXPECT_EQ(ReadBeneath(*directory_, "short", {kOwn + 1, kMost}).error().code(),
            ErrorCode::kCorrupt);
  EXPECT_EQ(directory_->OpenBeneath("short", kOwn).error().code(), ErrorCode::kCorrupt);
}

TEST_F(BeneathTest, ALeaseDoesNotHoldUsUp) {
  ASSERT_OK(WriteFileAtomically(In("leased"), "x"));
  const UniqueFd file = OpenFile(In("leased"), O_RDWR).value();
  if (::fcntl(file.get(), F_SETLEASE, F_WRLCK) != 0) GTEST_SKIP() << "no leases here";
  const auto handler = ::signal(SIGIO, SIG_IGN);
  EXPECT_EQ(Read("leased").error().code(), ErrorCode::kUnavailable);
  (void)::fcntl(file.get(), F_SETLEASE, F_UNLCK);
  (void)::signal(SIGIO, handler);
}

TEST_F(BeneathTest, NoOtherMountIsEntered) {
  ASSERT_OK(MakeDirectories(In("mounted")));
  if (::mount("none", In("mounted").c_str(), "tmpfs", 0, nullptr) != 0)
    GTEST_SKIP() << "mounting needs root";
  EXPECT_OK(WriteFileAtomically(In("mounted/file"), "x"));
  ExpectRefused("mounted/file");
  EXPECT_EQ(directory_->OpenBeneath("mounted", kOwn).error().code(), ErrorCode::kCorrupt);
  EXPECT_OK(Directory::Open(In("mounted"))) << "where we are told to begin it may be one";
  EXPECT_EQ(::umount2(In("mounted").c_str(), MNT_DETACH), 0);
}

TEST_F(BeneathTest, WhatIsMadeIsMadeWhereItIsNamedAndIsItsOwners) {
  ASSERT_EQ(::symlink((scratch_ / "elsewhere").c_str(), In("file").c_str()), 0);
  ASSERT_EQ(::symlink(scratch_.path().c_str(), In("directory").c_str()), 0);
  EXPECT_EQ(MakeBeneath(*directory_, "file", "x", 0600, kOwn).error().code(),
            ErrorCode::kAlreadyExists);
  EXPECT_FALSE(PathExists(scratch_ / "elsewhere"));
  EXPECT_EQ(directory_->Make("directory", 0700, kOwn).error().code(), ErrorCode::kAlreadyExists);
  const auto made = directory_->Make("made", 0700, kOwn);
  ASSERT_OK(made);
  // Its owner moves it away and puts a link in its place; the directory is the same one.
  ASSERT_EQ(::rename(In("made").c_str(), In("moved").c_str()), 0);
  ASSERT_EQ(::symlink(scratch_.path().c_str(), In("made").c_str()), 0);
  ASSERT_OK(MakeBeneath(*made, "state", "y", 0444, kOwn));
  EXPECT_EQ(ReadFile(In("moved/state"), kMost).value(), "y");
  EXPECT_FALSE(PathExists(scratch_ / "state"));
  if (!IsRoot()) return;
  ASSERT_OK(directory_->Make("given", 0700, 4242));
  struct stat info {};
  ASSERT_EQ(::stat(In("given").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 4242U);
  EXPECT_EQ(info.st_gid, 4242U);
}

}  // namespace
}  // namespace dormouse::host
