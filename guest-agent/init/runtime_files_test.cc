#include "guest-agent/init/runtime_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "guest-agent/init/files.h"
#include "guest-agent/init/limits.h"

namespace dormouse::guest {
namespace {

namespace fs = std::filesystem;

class RuntimeFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/guest-runtime-files-test-XXXXXX";
    root_ = ::mkdtemp(name);
  }
  void TearDown() override { fs::remove_all(root_); }
  void Write(const std::string& path, std::string_view text) const {
    fs::create_directories((root_ + path).substr(0, (root_ + path).rfind('/')));
    ASSERT_TRUE(WriteSmallFile(root_ + path, text));
  }
  /// "755 65534": mode and owner; "" where it is not.
  [[nodiscard]] std::string Shown(const std::string& path) const {
    struct stat info {};
    if (::lstat((root_ + path).c_str(), &info) != 0) return "";
    char text[32];
    std::snprintf(text, sizeof(text), "%o %u", info.st_mode & 07777, info.st_uid);
    return text;
  }
  [[nodiscard]] std::string Read(const std::string& path) const {
    return ReadSmallFile(root_ + path).value_or("(none)");
  }
  std::string root_;
};

TEST_F(RuntimeFilesTest, TheUsualDirectoriesHaveTheirUsualModes) {
  ASSERT_TRUE(MakeRuntimeFiles(root_));
  EXPECT_EQ(Shown("/run/lock"), "1777 0");
  EXPECT_EQ(Shown("/run/user"), "755 0");
  EXPECT_EQ(Shown("/tmp"), "1777 0");
  fs::permissions(root_ + "/tmp", fs::perms::owner_all);
  ASSERT_TRUE(MakeRuntimeFiles(root_));
  EXPECT_EQ(Shown("/tmp"), "700 0") << "what is there is the image's";
}

TEST_F(RuntimeFilesTest, TmpfilesOfInstalledProgramsAreMadeBelowRunOnly) {
  Write("/etc/passwd", "app:x:1001:1002::/:/bin/sh\n");
  Write("/etc/group", "app:x:1002:\n");
  Write(
      "/usr/lib/tmpfiles.d/a.conf",
      "# comment\nd /run/app 0750 app app -\nd /var/run/old 755\nf /run/app/motd 0640 - - - hello\n"
      "L /run/link - - - - /etc/passwd\nd /srv/elsewhere\nd /run/%m\nd /run/../escape\nx /run/x\n");
  Write("/usr/lib/tmpfiles.d/b.conf", "d /run/masked\n");
  Write("/etc/tmpfiles.d/b.conf", "");
  ASSERT_TRUE(MakeRuntimeFiles(root_));
  EXPECT_EQ(Shown("/run/app"), "750 1001");
  EXPECT_EQ(Shown("/run/old"), "755 0");
  EXPECT_EQ(Read("/run/app/motd"), "hello");
  EXPECT_EQ(fs::read_symlink(root_ + "/run/link"), "/etc/passwd");
  for (const char* none : {"/srv/elsewhere", "/run/%m", "/escape", "/run/x", "/run/masked"})
    EXPECT_EQ(Shown(none), "") << none;
}

TEST_F(RuntimeFilesTest, RuntimeDirectoriesOfInstalledUnitsAreMade) {
  Write("/etc/passwd", "redis:x:1003:1003::/:/bin/sh\n");
  Write("/lib/systemd/system/ssh.service",
        "[Service]\nRuntimeDirectory=sshd\nRuntimeDirectoryMode=0755\n");
  Write("/lib/systemd/system/redis.service",
        "[Service]\nUser=redis\nRuntimeDirectory=redis redis-sentinel\n"
        "RuntimeDirectoryMode=2750\n");
  Write("/lib/systemd/system/odd.service", "RuntimeDirectory=%i ../x\n");
  Write("/lib/systemd/system/nobody.service", "User=nosuchuser\nRuntimeDirectory=nobodys\n");
  ASSERT_TRUE(MakeRuntimeFiles(root_));
  EXPECT_EQ(Shown("/run/sshd"), "755 0");
  EXPECT_EQ(Shown("/run/redis"), "2750 1003");
  EXPECT_EQ(Shown("/run/redis-sentinel"), "2750 1003");
  EXPECT_EQ(Shown("/run/nobodys"), "755 0");
  EXPECT_FALSE(fs::exists(root_ + "/x"));
}

TEST_F(RuntimeFilesTest, SysctlsOfTheImageAreAppliedInOrder) {
  for (const char* key :
       {"/proc/sys/net/ipv4/ip_forward", "/proc/sys/vm/swappiness",
        "/proc/sys/net/ipv4/conf/eth0/rp_filter", "/proc/sys/net/ipv4/conf/eth1/rp_filter",
        "/proc/sys/net/ipv4/conf/eth0.5/rp_filter"}) {
    Write(key, "0\n");
  }
  Write("/usr/lib/sysctl.d/10-a.conf", "vm.swappiness = 10\nnet.ipv4.conf.eth?.rp_filter=2\n");
  Write("/etc/sysctl.d/20-b.conf",
        "; comment\nnet/ipv4/ip_forward=1\nnet/ipv4/conf/eth0.5/rp_filter = 1\n");
  Write("/etc/sysctl.conf", "vm.swappiness=60\n-no.such.key=1\nalso.not.there=1\nnonsense\n");
  ASSERT_TRUE(ApplySysctls(root_));
  EXPECT_EQ(Read("/proc/sys/vm/swappiness"), "60");
  EXPECT_EQ(Read("/proc/sys/net/ipv4/ip_forward"), "1");
  EXPECT_EQ(Read("/proc/sys/net/ipv4/conf/eth0/rp_filter"), "2");
  EXPECT_EQ(Read("/proc/sys/net/ipv4/conf/eth1/rp_filter"), "2");
  EXPECT_EQ(Read("/proc/sys/net/ipv4/conf/eth0.5/rp_filter"), "1");
}

TEST_F(RuntimeFilesTest, DevicesAndLinksThatProgramsExpectAreThere) {
  fs::create_directories(root_ + "/dev");
  const auto made = MakeDevices(root_);
  if (!made && made.error().errnum() == EPERM) GTEST_SKIP() << "no device nodes can be made here";
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(Shown("/dev/net/tun"), "666 0");
  EXPECT_EQ(Shown("/dev/fuse"), "666 0");
  EXPECT_EQ(fs::read_symlink(root_ + "/dev/fd"), "/proc/self/fd");
  EXPECT_TRUE(MakeDevices(root_)) << "twice is fine";
}

}  // namespace
}  // namespace dormouse::guest
