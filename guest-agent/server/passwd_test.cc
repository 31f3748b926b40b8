#include "guest-agent/server/passwd.h"

#include <gtest/gtest.h>

namespace dormouse::guest {
namespace {

const IdentityFiles kFiles{
    "root:x:0:0:root:/root:/bin/sh\n"
    "garbage\n"
    "bad:x:minus:1::/x:/bin/sh\n"
    "\n"
    "app:x:1000:1001:An app,,,:/home/app:/bin/sh\n"
    "nohome:x:1002:1002:::\n"
    "4242:x:77:78::/digits:\n"
    "wrap:x:4294967295:1::/:/bin/sh",
    "root:x:0:\n"
    "app:x:1001:\n"
    "video:x:44:someone,app\n"
    "audio:x:45:application\n"
    "broken:x\n"
    "docker:x:900:app"};

TEST(PasswdTest, UsersAreResolvedAsTheFilesSay) {
  const struct {
    const char* spec;
    uid_t uid;
    gid_t gid;
    std::vector<gid_t> groups;
    const char* home;
  } cases[] = {
      {"", 0, 0, {0}, "/root"},
      {"root", 0, 0, {0}, "/root"},
      {"app", 1000, 1001, {1001, 44, 900}, "/home/app"},
      {"1000", 1000, 1001, {1001, 44, 900}, "/home/app"},
      {"app:video", 1000, 44, {44}, "/home/app"},
      {"app:7", 1000, 7, {7}, "/home/app"},
      {"5000", 5000, 0, {0}, "/"},
      {"5000:6000", 5000, 6000, {6000}, "/"},
      {"nohome", 1002, 1002, {1002}, "/"},
      {"4242", 77, 78, {78}, "/digits"},
  };
  for (const auto& test : cases) {
    const auto got = ResolveUser(test.spec, kFiles);
    ASSERT_TRUE(got) << test.spec << ": " << got.error().message();
    EXPECT_EQ(got->uid, test.uid) << test.spec;
    EXPECT_EQ(got->gid, test.gid) << test.spec;
    EXPECT_EQ(got->groups, test.groups) << test.spec;
    EXPECT_EQ(got->home, test.home) << test.spec;
  }
}

TEST(PasswdTest, WhomTheFilesDoNotKnowIsRefusedByName) {
  for (const char* spec : {"nobody", "bad", "wrap", "garbage", "-1", "4294967295", "1 ", ":0",
                           "app:", "app:nogroup", "app:0:0", "99999999999"}) {
    const auto got = ResolveUser(spec, kFiles);
    ASSERT_FALSE(got) << spec;
    EXPECT_EQ(got.error().code(), ErrorCode::kNotFound) << spec;
  }
}

TEST(PasswdTest, RootNeedsNoFiles) {
  const auto got = ResolveUser("", {});
  ASSERT_TRUE(got);
  EXPECT_EQ(got->uid, 0U);
  EXPECT_EQ(got->home, "/");
  EXPECT_TRUE(ReadIdentityFiles("/nonexistent").passwd.empty());
}

}  // namespace
}  // namespace dormouse::guest
