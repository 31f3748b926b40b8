// Golden files hold the whole of each table; DORMOUSE_UPDATE_GOLDEN=1 writes them anew.
#include "node-agent/net/rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "src/common/base/files.h"

namespace dormouse::net {
namespace {

void ExpectGolden(const std::string& name, const std::string& text) {
  const std::string path = std::string(DORMOUSE_TESTDATA) + "/" + name;
  if (std::getenv("DORMOUSE_UPDATE_GOLDEN") != nullptr) {
    ASSERT_TRUE(WriteFileAtomically(path, text, 0644));
  }
  EXPECT_EQ(ReadFile(path, 1 << 20).value_or("(no file)"), text) << path;
}

SandboxRules Rules(Egress egress) {
  return {"10.201.0.1",
          {egress, {"10.20.0.0/16", "2001:db8::/32"}, {"203.0.113.0/24"}, {"10.96.0.10"}},
          {"10.201.0.0/16", "192.0.2.0/24"},
          {"169.254.20.10"}};
}

TEST(RulesTest, SandboxRestricted) {
  ExpectGolden("sandbox-restricted.nft", SandboxTable(Rules(Egress::kRestricted)));
}
TEST(RulesTest, SandboxOpen) {
  ExpectGolden("sandbox-open.nft", SandboxTable(Rules(Egress::kOpen)));
}
TEST(RulesTest, SandboxNone) {
  ExpectGolden("sandbox-none.nft", SandboxTable(Rules(Egress::kNone)));
}
TEST(RulesTest, Node) {
  ExpectGolden("node.nft", NodeTable({"10.201.0.0/16", {"10.96.0.10"}}));
}

TEST(RulesTest, TheCommentOfATableTellsItFromEachOther) {
  const std::string table = SandboxTable(Rules(Egress::kOpen));
  EXPECT_EQ(CommentOf(table).size(), 32u);
  EXPECT_EQ(CommentOf(table), CommentOf(SandboxTable(Rules(Egress::kOpen))));
  EXPECT_NE(CommentOf(table), CommentOf(SandboxTable(Rules(Egress::kNone))));
  SandboxRules other = Rules(Egress::kOpen);
  other.always_denied.pop_back();
  EXPECT_NE(CommentOf(table), CommentOf(SandboxTable(other)));
}

TEST(RulesTest, NoTextOfAUserReachesTheRulesUnread) {
  EgressPolicy policy;
  policy.allow = {"10.0.0.0/8", "2001:db8::/32", "192.0.2.1"};
  EXPECT_TRUE(CheckPolicy(policy));
  for (const char* bad :
       {"", "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8 accept", "10.0.0.0/8\nflush ruleset",
        "::/129", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8/8"}) {
    policy.allow = {bad};
    EXPECT_EQ(CheckPolicy(policy).error().code(), ErrorCode::kInvalid) << bad;
  }
  policy.allow.clear();
  policy.resolvers = {"10.96.0.10; drop"};
  EXPECT_FALSE(CheckPolicy(policy));
}

}  // namespace
}  // namespace dormouse::net
