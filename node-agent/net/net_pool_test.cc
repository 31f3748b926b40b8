// What comes out of the pool, what goes by itself, and what the next agent finds. In a "node" of
// the test's own, as in sandbox_net_test.cc.
#include "node-agent/net/net_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>

#include <map>
#include <regex>
#include <sstream>

#include "node-agent/host/netns.h"
#include "node-agent/host/nft.h"
#include "node-agent/host/test_support.h"
#include "node-agent/net/sandbox_net.h"
#include "src/common/base/failpoint.h"

namespace dormouse::net {
namespace {

using host::Eventually;
using host::RouteSocket;

void Replace(std::string* text, const std::string& what, const std::string& with) {
  for (size_t at = 0; (at = text->find(what, at)) != std::string::npos; at += with.size())
    text->replace(at, what.size(), with);
}

using Description = std::map<std::string, std::string>;

std::vector<std::string> Differences(const Description& one, const Description& other) {
  std::vector<std::string> names;
  for (const auto& [name, text] : one) {
    const auto found = other.find(name);
    if (found == other.end() || found->second != text) names.push_back(name);
  }
  if (one.size() != other.size()) names.emplace_back("what is described");
  return names;
}

SandboxNetSpec Spec(uint32_t slot) {
  SandboxNetSpec spec;
  spec.uid = "uid-" + std::to_string(slot);
  spec.short_id = "00000000000" + std::to_string(slot);
  spec.subject = "default/s" + std::to_string(slot);
  spec.host_address = AddressRange::Parse(kDefaultRange)->AddressOf(slot);
  spec.vmm_uid = 100017;
  return spec;
}

class NetPoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!host::IsRoot()) GTEST_SKIP() << "needs root";
    if (!PathExists("/dev/net/tun")) GTEST_SKIP() << "no /dev/net/tun";
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    host_.emplace(*host::HostNamespaces::Open("self"));
    if (const auto made = host::ApplyNft("add table inet probe\n"); !made)
      GTEST_SKIP() << "no nftables here: " << made.error().message();
  }
  NetConfig Config(size_t pool) {
    return {scratch_ / "netns", *AddressRange::Parse(kDefaultRange), {}, pool};
  }
  static std::vector<std::string> LinksOfTheNode() {
    std::vector<std::string> names;
    auto node = RouteSocket::Open();
    const auto links = node->ListLinks("");
    EXPECT_OK(links);
    for (const auto& link : *links) {
      if (link.kind == "veth") names.push_back(link.name);
    }
    return names;
  }
  // All that tells one sandbox's namespace from another's, its own address aside.
  static Description Describe(SandboxNets* nets, const SandboxNetSpec& spec) {
    Description seen;
    EXPECT_OK(host::RunInNetNs(nets->Open(spec)->get(), [&]() -> Result<> {
      DORMOUSE_ASSIGN(seen["rules"], host::ReadNftJson("list table inet dormouse"));
      for (const std::string file : {"net/fib_trie", "net/route", "net/if_inet6"})
        seen[file] = ReadFile("/proc/thread-self/" + file, 1 << 20).value_or("");
      seen["forwarding"] = ReadFile(kForwarding, 16).value_or("");
      // sysfs shows the links of the namespace that mounted it.
      if (::unshare(CLONE_FS | CLONE_NEWNS) != 0) return FailErrno("unshare");
      if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        return FailErrno("make mounts private");
      if (::mount("sysfs", "/sys", "sysfs", 0, nullptr) != 0) return FailErrno("mount sysfs");
      for (const std::string file :
           {"lo/flags", "tap0/owner", "tap0/group", "tap0/address", "tap0/flags", "tap0/tun_flags",
            "tap0/operstate", "tap0/ifalias", "eth0/flags", "eth0/mtu", "eth0/ifalias"}) {
        seen[file] = ReadFile("/sys/class/net/" + file, 4096).value_or("(none)");
      }
      return {};
    }));
    std::istringstream trie(seen["net/fib_trie"]);
    seen["net/fib_trie"].clear();
    for (std::string line; std::getline(trie, line);) {
      // Inner nodes of the tree depend on which addresses are neighbours.
      if (line.find("+--") == std::string::npos) seen["net/fib_trie"] += line + "\n";
    }
    // Counted on when a table is replaced.
    seen["rules"] = std::regex_replace(seen["rules"], std::regex("\"handle\": [0-9]+"), "");
    for (auto& [name, text] : seen) Replace(&text, spec.host_address, "HOST");
    auto node = RouteSocket::Open();
    const auto outer = node->FindLink(VethName(spec.short_id));
    EXPECT_OK(outer);
    if (*outer)
      seen["outer"] = (*outer)->kind + ((*outer)->up ? " up " : " down ") + (*outer)->alias;
    Replace(&seen["outer"], spec.uid, "UID");
    return seen;
  }

  host::ScratchDirectory scratch_;
  std::optional<host::HostNamespaces> host_;
};

TEST_F(NetPoolTest, WhatIsTakenIsLikeWhatWasMadeForItOrCompletedLater) {
  SandboxNets nets(*host_, Config(1));
  const NetPool::Work hold(&nets.pool());
  ASSERT_OK(nets.PrepareNode());
  ASSERT_OK(nets.pool().FillOne());
  ASSERT_EQ(nets.pool().ready(), 1U);
  ASSERT_OK(nets.Prepare(Spec(1)));
  EXPECT_EQ(nets.pool().ready(), 0U);
  ASSERT_OK(nets.Prepare(Spec(2))) << "an empty pool";
  ASSERT_OK(host::CreateNetNs(*host_, nets.NetNsPath(Spec(3).short_id)));
  ASSERT_OK(nets.Prepare(Spec(3))) << "a namespace that a crash left bare";
  const auto taken = Describe(&nets, Spec(1));
  EXPECT_EQ(taken.at("tap0/owner"), "100017\n");
  EXPECT_EQ(taken.at("outer"), "veth up UID");
  EXPECT_THAT(taken.at("net/fib_trie"), ::testing::HasSubstr("HOST"));
  EXPECT_THAT(Differences(taken, Describe(&nets, Spec(2))), ::testing::IsEmpty());
  EXPECT_THAT(Differences(taken, Describe(&nets, Spec(3))), ::testing::IsEmpty());
  for (const uint32_t slot : {1U, 2U, 3U}) {
    EXPECT_TRUE(nets.Observe(Spec(slot))->Ready());
    EXPECT_OK(nets.Remove(Spec(slot)));
  }
}

TEST_F(NetPoolTest, AnotherPolicyIsNotServedFromThePool) {
  SandboxNets nets(*host_, Config(1));
  const NetPool::Work hold(&nets.pool());
  ASSERT_OK(nets.PrepareNode());
  ASSERT_OK(nets.pool().FillOne());
  SandboxNetSpec closed = Spec(1);
  closed.policy.egress = Egress::kNone;
  ASSERT_OK(nets.Prepare(closed));
  EXPECT_EQ(nets.pool().ready(), 1U);
  EXPECT_OK(nets.Remove(closed));
}

TEST_F(NetPoolTest, FillsByItselfAndLeavesNothingBehind) {
  {
    SandboxNets nets(*host_, Config(2));
    ASSERT_OK(nets.PrepareNode());
    EXPECT_TRUE(Eventually([&] { return nets.pool().ready() == 2; }));
    EXPECT_THAT(LinksOfTheNode(), ::testing::IsEmpty()) << "what waits is held by us alone";
    ASSERT_OK(nets.Prepare(Spec(1)));
    EXPECT_TRUE(Eventually([&] { return nets.pool().ready() == 2; }));
    ASSERT_OK(nets.Remove(Spec(1)));
  }
  EXPECT_THAT(LinksOfTheNode(), ::testing::IsEmpty());
}

TEST_F(NetPoolTest, WhatADeadAgentTookHalfIsCompleted) {
  // Its descriptors are still open, as those of a process that is being killed.
  auto half = Furnish({AddressRange::Parse(kDefaultRange)->gateway(), {}});
  ASSERT_OK(half);
  SandboxNets nets(*host_, Config(0));
  ASSERT_OK(MakeDirectories(scratch_ / "netns", 0700));
  ASSERT_OK(host::BindNetNs(*host_, half->netns.get(), nets.NetNsPath(Spec(1).short_id)));

  ASSERT_OK(nets.PrepareNode());
  EXPECT_FALSE(nets.Observe(Spec(1))->Ready());
  half->tap.Reset();
  ASSERT_OK(nets.Prepare(Spec(1)));
  EXPECT_TRUE(nets.Observe(Spec(1))->Ready());
  ASSERT_OK(nets.Prepare(Spec(2)));
  EXPECT_THAT(Differences(Describe(&nets, Spec(1)), Describe(&nets, Spec(2))),
              ::testing::IsEmpty());
  EXPECT_OK(nets.Remove(Spec(1)));
  EXPECT_OK(nets.Remove(Spec(2)));
}

TEST_F(NetPoolTest, ALinkOfANamespaceThatLostItsNameMakesWay) {
  SandboxNets nets(*host_, Config(0));
  ASSERT_OK(nets.PrepareNode());
  ASSERT_OK(nets.Prepare(Spec(1)));
  const auto held = nets.Open(Spec(1));
  ASSERT_OK(held);
  ASSERT_OK(host::DeleteNetNs(*host_, nets.NetNsPath(Spec(1).short_id)));
  ASSERT_OK(nets.Prepare(Spec(1)));
  EXPECT_TRUE(nets.Observe(Spec(1))->Ready());
  EXPECT_OK(host::RunInNetNs(held->get(), []() -> Result<> {
    DORMOUSE_ASSIGN(RouteSocket inside, RouteSocket::Open());
    EXPECT_FALSE(inside.FindLink(kInnerVeth).value());
    return {};
  }));
  EXPECT_OK(nets.Remove(Spec(1)));
}

}  // namespace
}  // namespace dormouse::net
