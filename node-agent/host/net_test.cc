// Namespaces, links and rules in a network namespace of the test's own: the machine's is not
// touched.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include "node-agent/host/netlink.h"
#include "node-agent/host/netns.h"
#include "node-agent/host/nft.h"
#include "node-agent/host/test_support.h"

namespace dormouse::host {
namespace {

using ::testing::ElementsAre;

class NetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!IsRoot()) GTEST_SKIP() << "needs root";
    host_.emplace(*HostNamespaces::Open("self"));
    path_ = scratch_ / "netns";
    ASSERT_OK(CreateNetNs(*host_, path_));
    auto opened = OpenNetNs(*host_, path_);
    ASSERT_OK(opened);
    netns_ = *std::move(opened);
  }
  void TearDown() override {
    if (!host_) return;
    EXPECT_OK(DeleteNetNs(*host_, path_));
  }
  void Inside(const std::function<Result<>()>& work) { EXPECT_OK(RunInNetNs(netns_.get(), work)); }

  ScratchDirectory scratch_;
  std::optional<HostNamespaces> host_;
  std::string path_;
  UniqueFd netns_;
};

TEST_F(NetTest, ANamespaceIsMadeOnceFoundAgainAndDeleted) {
  EXPECT_OK(CreateNetNs(*host_, path_));
  EXPECT_THAT(ListNetNs(*host_, scratch_.path()).value(), ElementsAre("netns"));
  ASSERT_OK(DeleteNetNs(*host_, path_));
  EXPECT_FALSE(PathExists(path_));
  EXPECT_OK(DeleteNetNs(*host_, path_));
  EXPECT_EQ(OpenNetNs(*host_, path_).error().code(), ErrorCode::kNotFound);
}

TEST_F(NetTest, APlainFileLeftByACrashIsNoNamespaceAndBecomesOne) {
  ASSERT_OK(WriteFileAtomically(scratch_ / "half", ""));
  EXPECT_EQ(OpenNetNs(*host_, scratch_ / "half").error().code(), ErrorCode::kNotFound);
  EXPECT_OK(CreateNetNs(*host_, scratch_ / "half"));
  EXPECT_TRUE(OpenNetNs(*host_, scratch_ / "half"));
  EXPECT_OK(DeleteNetNs(*host_, scratch_ / "half"));
}

TEST_F(NetTest, AVethIsBornAcrossNamespacesAndCarriesItsOwner) {
  ASSERT_OK(CreateNetNs(*host_, scratch_ / "inner"));
  auto inner = OpenNetNs(*host_, scratch_ / "inner");
  ASSERT_OK(inner);
  const VethPair pair{"dmv001122334455", "eth0", inner->get()};
  Inside([&]() -> Result<> {
    DORMOUSE_ASSIGN(RouteSocket socket, RouteSocket::Open());
    DORMOUSE_TRY(socket.CreateVeth(pair));
    EXPECT_EQ(socket.CreateVeth(pair).error().code(), ErrorCode::kAlreadyExists);
    DORMOUSE_TRY(socket.AddPeerAddress(pair.name, "10.201.0.1", "10.201.0.9"));
    EXPECT_OK(socket.AddPeerAddress(pair.name, "10.201.0.1", "10.201.0.9"));
    DORMOUSE_TRY(socket.SetUp(pair.name, "uid-1"));
    DORMOUSE_ASSIGN(const auto links, socket.ListLinks("dmv"));
    EXPECT_EQ(links.size(), 1U);
    EXPECT_EQ(links[0].alias, "uid-1");
    EXPECT_EQ(links[0].kind, "veth");
    EXPECT_TRUE(links[0].up);
    return {};
  });
  EXPECT_OK(RunInNetNs(inner->get(), []() -> Result<> {
    DORMOUSE_ASSIGN(RouteSocket socket, RouteSocket::Open());
    EXPECT_TRUE(socket.FindLink("eth0").value().has_value());
    DORMOUSE_TRY(socket.AddPeerAddress("eth0", "10.201.0.9", "10.201.0.1"));
    DORMOUSE_TRY(socket.SetUp("eth0"));
    DORMOUSE_TRY(socket.ReplaceRoute("eth0", "0.0.0.0/0", "10.201.0.1"));
    return socket.ReplaceRoute("eth0", "0.0.0.0/0", "10.201.0.1");  // a retry
  }));
  Inside([&]() -> Result<> {
    DORMOUSE_ASSIGN(RouteSocket socket, RouteSocket::Open());
    DORMOUSE_TRY(socket.DeleteLink(pair.name));
    EXPECT_FALSE(socket.FindLink(pair.name).value().has_value());
    return socket.DeleteLink(pair.name);
  });
  EXPECT_OK(DeleteNetNs(*host_, scratch_ / "inner"));
}

TEST_F(NetTest, ATapStaysWithItsOwnerAndMac) {
  if (!PathExists("/dev/net/tun")) GTEST_SKIP() << "no /dev/net/tun";
  Inside([]() -> Result<> {
    DORMOUSE_TRY(CreateTap({"tap0", 100017, "02:fc:00:00:00:01"}));
    EXPECT_OK(CreateTap({"tap0", 100017, "02:fc:00:00:00:01"}));
    DORMOUSE_ASSIGN(RouteSocket socket, RouteSocket::Open());
    DORMOUSE_ASSIGN(const auto tap, socket.FindLink("tap0"));
    EXPECT_TRUE(tap.has_value());
    EXPECT_EQ(tap->mac, "02:fc:00:00:00:01");
    EXPECT_EQ(tap->kind, "tun");
    return socket.SetUp("tap0");
  });
}

TEST_F(NetTest, RulesAreAllOrNothing) {
  Inside([]() -> Result<> {
    DORMOUSE_TRY(
        ApplyNft("add table inet dormouse\nadd set inet dormouse s { type ipv4_addr; }\n"));
    const auto half = ApplyNft(
        "add element inet dormouse s { 192.0.2.1 }\nadd rule inet dormouse nowhere accept\n");
    EXPECT_FALSE(half);
    DORMOUSE_ASSIGN(const std::string json, ReadNftJson("list set inet dormouse s"));
    EXPECT_EQ(json.find("192.0.2.1"), std::string::npos) << json;
    EXPECT_EQ(ReadNftJson("list table inet absent").error().code(), ErrorCode::kNotFound);
    return {};
  });
}

}  // namespace
}  // namespace dormouse::host
