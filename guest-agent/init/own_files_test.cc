// Needs root and a mount namespace of its own; skips with the reason otherwise.
#include "guest-agent/init/own_files.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>

#include "guest-agent/init/files.h"

namespace dormouse::guest {
namespace {

namespace fs = std::filesystem;

class OwnFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      GTEST_SKIP() << "no mount namespace here: " << std::strerror(errno);
    }
    char name[] = "/tmp/guest-own-files-test-XXXXXX";
    root_ = ::mkdtemp(name);
    // The disk: one that can be made read-only, or be full.
    ASSERT_EQ(::mount("tmpfs", root_.c_str(), "tmpfs", 0, "size=64k"), 0);
    fs::create_directories(root_ + "/etc");
    ASSERT_EQ(::mkdir((root_ + "/run").c_str(), 0755), 0);
    ASSERT_EQ(::mount("tmpfs", (root_ + "/run").c_str(), "tmpfs", 0, nullptr), 0);
  }
  void TearDown() override {
    while (!root_.empty() && ::umount2((root_ + "/run").c_str(), MNT_DETACH) == 0) {
    }
    while (!root_.empty() && ::umount2(root_.c_str(), MNT_DETACH) == 0) {
    }
    if (!root_.empty()) fs::remove_all(root_);
  }
  [[nodiscard]] OwnFiles Make() const { return OwnFiles::Make(root_, "/run/dormouse").value(); }
  [[nodiscard]] std::string Read(const std::string& path) const {
    return ReadSmallFile(root_ + path).value_or("(none)");
  }
  void Write(const std::string& path, std::string_view text) const {
    ASSERT_TRUE(WriteSmallFile(root_ + path, text));
  }
  /// What is on the disk below what was mounted.
  [[nodiscard]] std::string OnDisk(const std::string& path) const {
    (void)::umount2((root_ + path).c_str(), MNT_DETACH);
    return Read(path);
  }
  std::string root_;
  std::vector<std::string> notes_;
};

TEST_F(OwnFilesTest, AFileReadsAsItWasPutAndTheDiskKeepsItsOwn) {
  Write("/etc/machine-id", "image\n");
  OwnFiles files = Make();
  ASSERT_TRUE(files.Put("/etc/machine-id", "first\n", notes_));
  ASSERT_TRUE(files.Put("/etc/machine-id", "second, longer\n", notes_));
  EXPECT_EQ(Read("/etc/machine-id"), "second, longer\n");
  EXPECT_EQ(files.Image("/etc/machine-id"), "image\n");
  ASSERT_TRUE(files.Put("/etc/machine-id", "3\n", notes_));
  EXPECT_EQ(Read("/etc/machine-id"), "3\n");
  EXPECT_EQ(OnDisk("/etc/machine-id"), "image\n");
  EXPECT_TRUE(notes_.empty());
}

TEST_F(OwnFilesTest, AMissingFileAndALinkThatLeadsNowhereGetTheirPlace) {
  OwnFiles files = Make();
  ASSERT_TRUE(files.Put("/etc/hosts", "127.0.0.1 localhost\n", notes_));
  EXPECT_EQ(Read("/etc/hosts"), "127.0.0.1 localhost\n");
  fs::create_symlink("../run/systemd/resolve/stub-resolv.conf", root_ + "/etc/resolv.conf");
  ASSERT_TRUE(files.Put("/etc/resolv.conf", "nameserver 10.0.0.2\n", notes_));
  EXPECT_EQ(Read("/etc/resolv.conf"), "nameserver 10.0.0.2\n");
  EXPECT_TRUE(notes_.empty());
}

TEST_F(OwnFilesTest, WhatIsCoveredIsKnownAndCanReadAsTheImageHasItAgain) {
  Write("/etc/resolv.conf", "nameserver 9.9.9.9\n");
  OwnFiles files = Make();
  EXPECT_FALSE(files.Covers("/etc/resolv.conf"));
  ASSERT_TRUE(files.Put("/etc/resolv.conf", "nameserver 10.0.0.2\n", notes_));
  EXPECT_TRUE(files.Covers("/etc/resolv.conf"));
  ASSERT_TRUE(files.Put("/etc/resolv.conf", files.Image("/etc/resolv.conf"), notes_));
  EXPECT_EQ(Read("/etc/resolv.conf"), "nameserver 9.9.9.9\n");
}

TEST_F(OwnFilesTest, AFullOrReadOnlyDiskCostsANoteOnlyWhereAFileIsMissing) {
  Write("/etc/hostname", "image\n");
  ASSERT_EQ(::mount(nullptr, root_.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
  OwnFiles files = Make();
  ASSERT_TRUE(files.Put("/etc/hostname", "web\n", notes_));
  EXPECT_EQ(Read("/etc/hostname"), "web\n");
  EXPECT_TRUE(notes_.empty());
  ASSERT_TRUE(files.Put("/etc/machine-id", "id\n", notes_));
  ASSERT_EQ(notes_.size(), 1U);
  EXPECT_NE(notes_[0].find("/etc/machine-id"), std::string::npos) << notes_[0];
}

TEST_F(OwnFilesTest, APipeOrADirectoryInPlaceOfAFileIsNeitherWaitedForNorCovered) {
  ASSERT_EQ(::mkfifo((root_ + "/etc/hosts").c_str(), 0600), 0);
  fs::create_directories(root_ + "/etc/hostname");
  OwnFiles files = Make();
  ASSERT_TRUE(files.Put("/etc/hosts", "x", notes_));
  ASSERT_TRUE(files.Put("/etc/hostname", "x", notes_));
  EXPECT_EQ(notes_.size(), 2U);
  EXPECT_TRUE(fs::is_fifo(root_ + "/etc/hosts"));
}

}  // namespace
}  // namespace dormouse::guest
