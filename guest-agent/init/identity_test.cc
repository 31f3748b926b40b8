#include "guest-agent/init/identity.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "guest-agent/init/files.h"

namespace dormouse::guest {
namespace {

namespace fs = std::filesystem;
constexpr char kOld[] = "11111111111111111111111111111111\n";
constexpr char kNew[] = "0123456789abcdef0123456789abcdef";

class IdentityTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/guest-identity-test-XXXXXX";
    root_ = ::mkdtemp(name);
    fs::create_directories(root_ + "/etc/ssh");
    fs::create_directories(root_ + "/var/lib/dbus");
    fs::create_directories(root_ + "/run");
  }
  void TearDown() override { fs::remove_all(root_); }
  [[nodiscard]] std::string Read(const std::string& path) const {
    return ReadSmallFile(root_ + path).value_or("");
  }
  void Write(const std::string& path, std::string_view text) const {
    ASSERT_TRUE(WriteSmallFile(root_ + path, text));
  }
  std::string root_;
  std::vector<std::string> notes_;
};

TEST_F(IdentityTest, EveryMachineIdThatIsThereIsRewritten) {
  Write("/etc/machine-id", std::string(kOld) + "and more");
  Write("/run/machine-id", kOld);
  Write("/var/lib/dbus/machine-id", kOld);
  ASSERT_TRUE(WriteMachineId(root_, kNew, notes_));
  for (const char* path : {"/etc/machine-id", "/run/machine-id", "/var/lib/dbus/machine-id"}) {
    EXPECT_EQ(Read(path), std::string(kNew) + "\n") << path;
  }
  EXPECT_TRUE(notes_.empty());
}

TEST_F(IdentityTest, OnlyTheOneInEtcIsMadeWhereThereIsNone) {
  ASSERT_TRUE(WriteMachineId(root_, kNew, notes_));
  EXPECT_EQ(Read("/etc/machine-id"), std::string(kNew) + "\n");
  EXPECT_FALSE(fs::exists(root_ + "/run/machine-id"));
  EXPECT_FALSE(fs::exists(root_ + "/var/lib/dbus/machine-id"));
  fs::remove_all(root_ + "/etc");
  EXPECT_TRUE(WriteMachineId(root_, kNew, notes_)) << "a disk without /etc has no identity";
}

TEST_F(IdentityTest, LinksAndPipesAreNeitherFollowedNorWaitedFor) {
  Write("/victim", kOld);
  fs::create_symlink(root_ + "/victim", root_ + "/etc/machine-id");
  fs::create_symlink("/etc/machine-id", root_ + "/var/lib/dbus/machine-id");
  ASSERT_EQ(::mkfifo((root_ + "/run/machine-id").c_str(), 0600), 0);
  ASSERT_TRUE(WriteMachineId(root_, kNew, notes_));
  EXPECT_EQ(Read("/victim"), kOld);
  EXPECT_EQ(Read("/etc/machine-id"), std::string(kNew) + "\n");
  EXPECT_TRUE(fs::is_symlink(root_ + "/var/lib/dbus/machine-id"));
  EXPECT_TRUE(fs::is_fifo(root_ + "/run/machine-id"));
}

TEST_F(IdentityTest, HostKeysGoAndNothingElse) {
  for (const char* file : {"ssh_host_rsa_key", "ssh_host_rsa_key.pub", "ssh_host_ed25519_key",
                           "sshd_config", "ssh_config"}) {
    Write(std::string("/etc/ssh/") + file, "x");
  }
  ASSERT_TRUE(RemoveSshHostKeys(root_, notes_));
  EXPECT_EQ(std::distance(fs::directory_iterator(root_ + "/etc/ssh"), {}), 2);
  EXPECT_TRUE(fs::exists(root_ + "/etc/ssh/sshd_config"));
  fs::remove_all(root_ + "/etc/ssh");
  EXPECT_TRUE(RemoveSshHostKeys(root_, notes_));
}

}  // namespace
}  // namespace dormouse::guest
