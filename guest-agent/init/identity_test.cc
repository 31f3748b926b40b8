#include "guest-agent/init/identity.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "guest-agent/init/files.h"

namespace dormouse::guest {
namespace {

namespace fs = std::filesystem;

class IdentityTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/guest-identity-test-XXXXXX";
    root_ = ::mkdtemp(name);
    fs::create_directories(root_ + "/etc/ssh");
  }
  void TearDown() override { fs::remove_all(root_); }
  void Write(const std::string& path, std::string_view text) const {
    ASSERT_TRUE(WriteSmallFile(root_ + path, text));
  }
  std::string root_;
  std::vector<std::string> notes_;
};

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
