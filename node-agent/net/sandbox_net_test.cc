// The network of sandboxes with real namespaces, links and rules. The "node" is a namespace of the
// test's own (the test's thread enters it for good), joined to an "outside" with a public and a
// private address; packets are what decides, not the text of rules.
#include "node-agent/net/sandbox_net.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "node-agent/host/inventory.h"
#include "node-agent/host/netlink.h"
#include "node-agent/host/netns.h"
#include "node-agent/host/nft.h"
#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"
#include "src/common/base/failpoint.h"

namespace dormouse::net {
namespace {

using host::RouteSocket;

constexpr char kPublic[] = "198.51.100.9";  // of the outside; TEST-NET-2
constexpr char kPrivate[] = "172.16.9.9";
constexpr char kMetadata[] = "169.254.169.254";
constexpr char kPlatform[] = "100.100.100.200";  // one of a cloud's, which the node lets be
constexpr char kOtherPlatform[] = "168.63.129.16";
constexpr char kAlwaysDenied[] = "203.0.113.9";  // by the node's administrator
constexpr char kNodeAddress[] = "198.51.100.1";
constexpr char kResolver[] = "172.16.9.53";

sockaddr_in SocketAddress(const std::string& address, uint16_t port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  ::inet_pton(AF_INET, address.c_str(), &to.sin_addr);
  return to;
}

// A UDP socket bound to `address` in `netns` (the thread's own where it is -1).
UniqueFd UdpSocket(int netns, const std::string& address, uint16_t port) {
  UniqueFd made;
  const auto open = [&]() -> Result<> {
    made = UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const sockaddr_in local = SocketAddress(address, port);
    if (::bind(made.get(), reinterpret_cast<const sockaddr*>(&local), sizeof(local)) != 0)
      return FailErrno("bind");
    return {};
  };
  EXPECT_OK(netns < 0 ? open() : host::RunInNetNs(netns, open));
  return made;
}

// Links of one kernel deliver at once: what has not come after this was dropped.
constexpr int kDropped = 150;
constexpr int kLongest = 5000;

// Whether a datagram from `from` arrives at `to`, which listens on address:port, within `timeout`
// ms.
bool Arrives(int from, int to, const std::string& address, uint16_t port, int timeout = kLongest) {
  char drain[64];
  while (::recv(to, drain, sizeof(drain), 0) > 0) {
  }
  const sockaddr_in target = SocketAddress(address, port);
  if (::sendto(from, "x", 1, 0, reinterpret_cast<const sockaddr*>(&target), sizeof(target)) != 1)
    return false;
  pollfd entry{to, POLLIN, 0};
  return ::poll(&entry, 1, timeout) > 0 && ::recv(to, drain, sizeof(drain), 0) == 1;
}

// Everything holds for a namespace from the pool as for one made on the spot: the parameter is the
// pool's size.
class SandboxNetTest : public ::testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (!host::IsRoot()) GTEST_SKIP() << "needs root";
    if (!PathExists("/dev/net/tun")) GTEST_SKIP() << "no /dev/net/tun";
    failpoint::DisarmAll();
    // Every test of this program gets a node of its own; gtest's one thread stays in the last.
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    host_.emplace(*host::HostNamespaces::Open("self"));
    nets_.emplace(*host_, NetConfig{scratch_ / "netns",
                                    *AddressRange::Parse(kDefaultRange),
                                    {kResolver, kNodeAddress},
                                    GetParam(),
                                    {kAlwaysDenied},
                                    {kPlatform}});
    hold_.emplace(&nets_->pool());
    ASSERT_OK(RouteSocket::Open()->SetUp("lo"));
    const auto prepared = nets_->PrepareNode();
    if (!prepared) GTEST_SKIP() << "no nftables here: " << prepared.error().message();
    FillPool();
    JoinOutside();
  }
  void FillPool() {
    while (nets_->pool().ready() < GetParam()) ASSERT_OK(nets_->pool().FillOne());
  }
  void TearDown() override {
    failpoint::DisarmAll();
    if (!nets_) return;
    EXPECT_OK(nets_->Remove(Spec(1)));
    EXPECT_OK(nets_->Remove(Spec(2)));
    EXPECT_OK(host::DeleteNetNs(*host_, scratch_ / "outside"));
  }
  void JoinOutside() {
    ASSERT_OK(host::CreateNetNs(*host_, scratch_ / "outside"));
    outside_ = host::OpenNetNs(*host_, scratch_ / "outside").value();
    auto node = RouteSocket::Open();
    ASSERT_OK(node);
    ASSERT_OK(node->CreateVeth({"uplink", "world", outside_.get()}));
    ASSERT_OK(node->AddAddress("uplink", std::string(kNodeAddress) + "/24"));
    ASSERT_OK(node->SetUp("uplink"));
    ASSERT_OK(host::RunInNetNs(outside_.get(), []() -> Result<> {
      DORMOUSE_ASSIGN(RouteSocket world, RouteSocket::Open());
      for (const std::string address :
           {kPublic, kPrivate, kMetadata, kResolver, kPlatform, kOtherPlatform, kAlwaysDenied}) {
        DORMOUSE_TRY(world.AddAddress("world", address + "/24"));
      }
      return world.SetUp("world");
    }));
    ASSERT_OK(node->ReplaceRoute("uplink", "0.0.0.0/0", kPublic));
  }
  static SandboxNetSpec Spec(uint32_t slot, Egress egress = Egress::kRestricted) {
    const auto range = AddressRange::Parse(kDefaultRange);
    const std::string id = "00000000000" + std::to_string(slot);
    return {"uid-" + std::to_string(slot), id,     "default/s" + std::to_string(slot),
            range->AddressOf(slot),        100017, {egress, {}, {}, {}}};
  }
  std::vector<host::InventoryItem> Listed() {
    host::InventorySources sources;
    sources.host = &*host_;
    sources.netns_directory = scratch_ / "netns";
    auto items = host::ListAll(sources);
    EXPECT_OK(items);
    return *items;
  }
  // As the VMM does.
  UniqueFd AttachTap(const SandboxNetSpec& spec) {
    UniqueFd tap;
    EXPECT_OK(host::RunInNetNs(nets_->Open(spec)->get(), [&]() -> Result<> {
      // The descriptor must be opened in the namespace to find its taps.
      DORMOUSE_ASSIGN(tap, host::OpenFile("/dev/net/tun", O_RDWR | O_NONBLOCK));
      ifreq request{};
      std::string(kTapName).copy(request.ifr_name, IFNAMSIZ - 1);
      request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
      if (::ioctl(tap.get(), TUNSETIFF, &request) != 0) return FailErrno("attach");
      return {};
    }));
    return tap;
  }
  // What the VMM itself could send from the namespace (its own sockets, not the guest's).
  UniqueFd VmmSocket(const SandboxNetSpec& spec) {
    return UdpSocket(nets_->Open(spec)->get(), spec.host_address, 0);
  }

  // Whether what `from` sends to the sandbox's address comes out of its tap. Without a guest that
  // is an ARP request for its address.
  static bool ReachesTap(int tap, int from, int timeout = kLongest) {
    char frame[2048];
    while (::read(tap, frame, sizeof(frame)) > 0) {
    }
    const sockaddr_in target = SocketAddress(Spec(1).host_address, 8080);
    (void)::sendto(from, "x", 1, 0, reinterpret_cast<const sockaddr*>(&target), sizeof(target));
    pollfd entry{tap, POLLIN, 0};
    while (::poll(&entry, 1, timeout) > 0) {
      const ssize_t got = ::read(tap, frame, sizeof(frame));
      // virtio header (10), Ethernet (14).
      if (got >= 24 && static_cast<unsigned char>(frame[22]) == 0x08 &&
          static_cast<unsigned char>(frame[23]) == 0x06)
        return true;
    }
    return false;
  }
  // What other programs of the node may do, by whatever tool: as `ip` asks for it.
  static Result<> Ip(const std::vector<const char*>& arguments) {
    std::string line = "ip";
    for (const char* argument : arguments) line += std::string(" ") + argument;
    return ::system(line.c_str()) == 0 ? Result<>() : Fail(ErrorCode::kInternal, line);
  }
  static Result<> ForgetRoutingRules() {
    return Ip({"rule flush; ip rule add pref 32766 table main"});
  }
  static Result<> FlushAddresses(const std::string& link) {
    return Ip({"-4 addr flush dev", link.c_str()});
  }
  static Result<> DropRouteTo(const std::string& address) {
    return address == "0.0.0.0" ? Ip({"route del default"}) : Ip({"route del", address.c_str()});
  }

  // So that what is refused afterwards was not lost for another reason.
  void ExpectOnline(int vmm) {
    const UniqueFd world = UdpSocket(outside_.get(), kPublic, 9001);
    EXPECT_TRUE(Arrives(vmm, world.get(), kPublic, 9001));
  }

  host::ScratchDirectory scratch_;
  std::optional<host::HostNamespaces> host_;
  std::optional<SandboxNets> nets_;
  std::optional<NetPool::Work> hold_;  // the test fills the pool
  UniqueFd outside_;
};

INSTANTIATE_TEST_SUITE_P(Pool, SandboxNetTest, ::testing::Values(0, 2));

TEST_P(SandboxNetTest, IsMadeOnceAndLeavesNothing) {
  ASSERT_OK(nets_->Prepare(Spec(1)));
  ASSERT_OK(nets_->Prepare(Spec(1)));
  const auto state = nets_->Observe(Spec(1));
  ASSERT_OK(state);
  EXPECT_TRUE(state->Ready());
  ASSERT_OK(nets_->PrepareNode()) << "an agent that starts again";
  EXPECT_TRUE(nets_->Observe(Spec(1))->Ready());
  ASSERT_OK(nets_->Remove(Spec(1)));
  ASSERT_OK(nets_->Remove(Spec(1)));
  EXPECT_TRUE(nets_->Observe(Spec(1))->Gone());
  EXPECT_TRUE(Listed().empty());
}

TEST_P(SandboxNetTest, NeitherEndHasAnIpv6AddressToSpeakFrom) {
  if (!PathExists("/proc/net/if_inet6")) GTEST_SKIP() << "a kernel without IPv6";
  ASSERT_OK(nets_->Prepare(Spec(1)));
  const auto addresses = [] { return ReadFile("/proc/thread-self/net/if_inet6", 1 << 16); };
  EXPECT_EQ(addresses().value().find(VethName(Spec(1).short_id)), std::string::npos);
  ASSERT_OK(host::RunInNetNs(nets_->Open(Spec(1))->get(), [&]() -> Result<> {
    EXPECT_EQ(addresses().value(), "");
    return {};
  }));
}

TEST_P(SandboxNetTest, WhatIsThereIsListedWithItsOwner) {
  ASSERT_OK(nets_->Prepare(Spec(1)));
  std::vector<std::string> kinds;
  for (const auto& item : Listed()) {
    EXPECT_EQ(item.short_id, Spec(1).short_id) << item.kind << " " << item.name;
    kinds.push_back(item.kind);
  }
  EXPECT_THAT(kinds, ::testing::ElementsAre("netns", "veth"));
}

TEST_P(SandboxNetTest, ANamesakesVethIsNeverAdopted) {
  ASSERT_OK(nets_->Prepare(Spec(1)));
  SandboxNetSpec other = Spec(1);
  other.uid = "uid-other";
  EXPECT_EQ(nets_->Prepare(other).error().code(), ErrorCode::kAlreadyExists);
  EXPECT_FALSE(nets_->Observe(other)->Ready());
}

TEST_P(SandboxNetTest, AFailureAtAnyStepHealsAndIsUndoneWhole) {
  for (const std::string step : {"netns", "rules", "tap", "veth"}) {
    for (const std::string edge : {"", ".done"}) {
      ASSERT_OK(failpoint::Arm("net." + step + edge + "=1*error(EIO)"));
      EXPECT_FALSE(nets_->Prepare(Spec(1))) << step << edge;
      ASSERT_OK(failpoint::Arm("net." + step + edge + "=1*error(EIO)"));
      EXPECT_FALSE(nets_->Prepare(Spec(2))) << step << edge;
      failpoint::DisarmAll();
      EXPECT_OK(nets_->Prepare(Spec(1))) << step << edge;
      EXPECT_TRUE(nets_->Observe(Spec(1))->Ready()) << step << edge;
      EXPECT_OK(nets_->Remove(Spec(2))) << step << edge;
      EXPECT_TRUE(nets_->Observe(Spec(2))->Gone()) << step << edge;
      EXPECT_OK(nets_->Remove(Spec(1)));
      FillPool();
    }
  }
}

TEST_P(SandboxNetTest, RestrictedReachesTheInternetAndNothingPrivate) {
  ASSERT_OK(nets_->Prepare(Spec(1)));
  const UniqueFd vmm = VmmSocket(Spec(1));
  const UniqueFd open = UdpSocket(outside_.get(), kPublic, 9000);
  const UniqueFd inside = UdpSocket(outside_.get(), kPrivate, 9000);
  const UniqueFd metadata = UdpSocket(outside_.get(), kMetadata, 80);
  const UniqueFd dns = UdpSocket(outside_.get(), kResolver, 53);
  const UniqueFd not_dns = UdpSocket(outside_.get(), kResolver, 54);
  EXPECT_TRUE(Arrives(vmm.get(), open.get(), kPublic, 9000));
  EXPECT_FALSE(Arrives(vmm.get(), inside.get(), kPrivate, 9000, kDropped));
  EXPECT_FALSE(Arrives(vmm.get(), metadata.get(), kMetadata, 80, kDropped));
  EXPECT_TRUE(Arrives(vmm.get(), dns.get(), kResolver, 53))
      << "the configured resolver, by its port only";
  EXPECT_FALSE(Arrives(vmm.get(), not_dns.get(), kResolver, 54, kDropped));
}

TEST_P(SandboxNetTest, OpenAndNoneAreWhatTheySay) {
  ASSERT_OK(nets_->Prepare(Spec(1, Egress::kOpen)));
  const UniqueFd vmm = VmmSocket(Spec(1));
  const UniqueFd open = UdpSocket(outside_.get(), kPublic, 9000);
  const UniqueFd inside = UdpSocket(outside_.get(), kPrivate, 9000);
  EXPECT_TRUE(Arrives(vmm.get(), open.get(), kPublic, 9000));
  EXPECT_TRUE(Arrives(vmm.get(), inside.get(), kPrivate, 9000));
}

TEST_P(SandboxNetTest, WhatATightenedPolicyDeniesEndsWithTheNextPacketOfEitherSide) {
  ASSERT_OK(nets_->Prepare(Spec(1, Egress::kOpen)));
  const UniqueFd vmm = VmmSocket(Spec(1));
  const UniqueFd open = UdpSocket(outside_.get(), kPublic, 9000);
  const UniqueFd inside = UdpSocket(outside_.get(), kPrivate, 9000);
  const auto answers = [&](int from, int timeout) {
    char byte = 0;
    pollfd entry{vmm.get(), POLLIN, 0};
    EXPECT_EQ(::send(from, "y", 1, 0), 1);
    return ::poll(&entry, 1, timeout) > 0 && ::recv(vmm.get(), &byte, 1, 0) == 1;
  };
  // As the outside sees it: the node's address, and a port of its choice.
  const auto joined = [&](int to, const std::string& address) {
    const sockaddr_in target = SocketAddress(address, 9000);
    EXPECT_EQ(
        ::sendto(vmm.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&target), sizeof(target)),
        1);
    pollfd entry{to, POLLIN, 0};
    EXPECT_GT(::poll(&entry, 1, kLongest), 0);
    char byte = 0;
    sockaddr_in from{};
    socklen_t size = sizeof(from);
    EXPECT_EQ(::recvfrom(to, &byte, 1, 0, reinterpret_cast<sockaddr*>(&from), &size), 1);
    EXPECT_EQ(::connect(to, reinterpret_cast<const sockaddr*>(&from), size), 0);
  };
  joined(open.get(), kPublic);
  joined(inside.get(), kPrivate);
  EXPECT_TRUE(answers(open.get(), kLongest));
  EXPECT_TRUE(answers(inside.get(), kLongest));
  ASSERT_OK(nets_->UpdateRules(Spec(1)));
  EXPECT_FALSE(Arrives(vmm.get(), inside.get(), kPrivate, 9000, kDropped));
  EXPECT_FALSE(answers(inside.get(), kDropped)) << "what it had opened is answered no more";
  EXPECT_TRUE(answers(open.get(), kLongest))
      << "what is still allowed goes on, though it is silent";
  ASSERT_OK(nets_->UpdateRules(Spec(1, Egress::kNone)));
  EXPECT_FALSE(Arrives(vmm.get(), open.get(), kPublic, 9000, kDropped));
  EXPECT_FALSE(answers(open.get(), kDropped));
}

TEST_P(SandboxNetTest, ThePolicyInForceIsReadFromTheNamespace) {
  ASSERT_OK(nets_->Prepare(Spec(1)));
  const auto in_force = [&] { return nets_->Observe(Spec(1))->rules; };
  EXPECT_EQ(in_force(), nets_->RulesFor(Spec(1).policy));
  ASSERT_OK(nets_->UpdateRules(Spec(1, Egress::kNone)));
  EXPECT_EQ(in_force(), nets_->RulesFor(Spec(1, Egress::kNone).policy));
  EXPECT_NE(in_force(), nets_->RulesFor(Spec(1).policy));
  ASSERT_OK(host::RunInNetNs(nets_->Open(Spec(1))->get(),
                             [] { return host::ApplyNft("flush ruleset"); }));
  EXPECT_EQ(in_force(), "");
  EXPECT_FALSE(nets_->Observe(Spec(1))->Ready());
  ASSERT_OK(nets_->UpdateRules(Spec(1)));
  EXPECT_EQ(in_force(), nets_->RulesFor(Spec(1).policy));
  EXPECT_OK(nets_->UpdateRules(Spec(2))) << "one that sleeps has no namespace";
}

TEST_P(SandboxNetTest, PlatformAddressesAreDeniedUnlessTheNodeLetsThemBe) {
  SandboxNetSpec spec = Spec(1, Egress::kOpen);
  spec.policy.allow = {"0.0.0.0/0"};
  ASSERT_OK(nets_->Prepare(spec));
  const UniqueFd vmm = VmmSocket(spec);
  ExpectOnline(vmm.get());
  for (const char* denied : {kMetadata, kOtherPlatform, kAlwaysDenied}) {
    const UniqueFd service = UdpSocket(outside_.get(), denied, 80);
    EXPECT_FALSE(Arrives(vmm.get(), service.get(), denied, 80, kDropped)) << denied;
  }
  const UniqueFd service = UdpSocket(outside_.get(), kPlatform, 80);
  EXPECT_TRUE(Arrives(vmm.get(), service.get(), kPlatform, 80));
  spec.policy = {Egress::kRestricted, {}, {}, {}};
  ASSERT_OK(nets_->UpdateRules(spec));
  EXPECT_FALSE(Arrives(vmm.get(), service.get(), kPlatform, 80, kDropped))
      << "it is for the policy to say";
}

TEST_P(SandboxNetTest, TheNodeStaysOutOfReachWhenAFirewallsRestartTakesOurTableAway) {
  ASSERT_OK(nets_->Prepare(Spec(1, Egress::kOpen)));
  ASSERT_OK(nets_->Prepare(Spec(2, Egress::kOpen)));
  const UniqueFd vmm = VmmSocket(Spec(1));
  const int on = 1;
  ASSERT_EQ(::setsockopt(vmm.get(), SOL_SOCKET, SO_BROADCAST, &on, sizeof(on)), 0);
  const UniqueFd kubelet = UdpSocket(-1, "0.0.0.0", 10250);
  const UniqueFd dns = UdpSocket(-1, kNodeAddress, 53);
  const UniqueFd two = UdpSocket(nets_->Open(Spec(2))->get(), Spec(2).host_address, 9000);
  ExpectOnline(vmm.get());
  EXPECT_TRUE(Arrives(vmm.get(), dns.get(), kNodeAddress, 53)) << "a resolver on the node";
  const auto expect_no_node = [&] {
    for (const char* address : {kNodeAddress, "10.201.0.1", "198.51.100.255", "255.255.255.255"}) {
      EXPECT_FALSE(Arrives(vmm.get(), kubelet.get(), address, 10250, kDropped)) << address;
    }
    EXPECT_FALSE(Arrives(vmm.get(), two.get(), Spec(2).host_address, 9000, kDropped));
  };
  expect_no_node();
  ASSERT_OK(host::ApplyNft("flush ruleset"));
  expect_no_node();
  for (const std::string loose : {"1", "2", "0"}) {
    ASSERT_OK(WriteKernelFile("/proc/sys/net/ipv4/conf/all/rp_filter", loose));
    expect_no_node();
  }
  EXPECT_FALSE(Arrives(vmm.get(), dns.get(), kNodeAddress, 53, kDropped));
  EXPECT_EQ(nets_->node().Repair().value(), "table inet dormouse");
  ExpectOnline(vmm.get());
  EXPECT_TRUE(Arrives(vmm.get(), dns.get(), kNodeAddress, 53));
  expect_no_node();
}

TEST_P(SandboxNetTest, TheTableKeepsTheNodeOutOfReachWhenOurRoutingRulesAreGone) {
  ASSERT_OK(nets_->Prepare(Spec(1, Egress::kOpen)));
  const UniqueFd vmm = VmmSocket(Spec(1));
  const UniqueFd kubelet = UdpSocket(-1, "0.0.0.0", 10250);
  ASSERT_OK(ForgetRoutingRules());
  EXPECT_FALSE(Arrives(vmm.get(), kubelet.get(), kNodeAddress, 10250, kDropped));
  EXPECT_EQ(nets_->node().Repair().value(), "routing rules");
  EXPECT_EQ(nets_->node().Repair().value(), "");
  ExpectOnline(vmm.get());
}

TEST_P(SandboxNetTest, TheNodeSpeaksToAGuestFromAnySocket) {
  ASSERT_OK(nets_->Prepare(Spec(1)));
  const UniqueFd tap = AttachTap(Spec(1));
  // Without an address of its own the way of a datagram is found twice (rules.cc, chain output).
  const UniqueFd plain = UdpSocket(-1, "0.0.0.0", 0);
  EXPECT_TRUE(ReachesTap(tap.get(), plain.get()));
  const UniqueFd connected = UdpSocket(-1, "0.0.0.0", 0);
  const sockaddr_in target = SocketAddress(Spec(1).host_address, 8080);
  ASSERT_EQ(::connect(connected.get(), reinterpret_cast<const sockaddr*>(&target), sizeof(target)),
            0);
  EXPECT_TRUE(ReachesTap(tap.get(), connected.get()));
}

TEST_P(SandboxNetTest, ALinkThatLosesItsAddressOrRouteIsSeenAndMadeWhole) {
  ASSERT_OK(nets_->Prepare(Spec(1)));
  const std::string veth = VethName(Spec(1).short_id);
  const auto netns = nets_->Open(Spec(1));
  const std::vector<std::pair<const char*, std::function<Result<>()>>> losses = {
      {"the node's address", [&] { return FlushAddresses(veth); }},
      {"the node's route", [&] { return DropRouteTo(Spec(1).host_address); }},
      {"the sandbox's address",
       [&] { return host::RunInNetNs(netns->get(), [&] { return FlushAddresses(kInnerVeth); }); }},
      {"the sandbox's route",
       [&] { return host::RunInNetNs(netns->get(), [&] { return DropRouteTo("0.0.0.0"); }); }}};
  for (const auto& [what, lose] : losses) {
    ASSERT_TRUE(nets_->Observe(Spec(1))->Ready()) << what;
    ASSERT_OK(lose());
    EXPECT_FALSE(nets_->Observe(Spec(1))->Ready()) << what;
    ASSERT_OK(nets_->Prepare(Spec(1)));
    EXPECT_TRUE(nets_->Observe(Spec(1))->Ready()) << what;
    const UniqueFd vmm = VmmSocket(Spec(1));
    ExpectOnline(vmm.get());
  }
}

TEST_P(SandboxNetTest, WhatGoesMissingOnTheNodeIsBackByItselfAndTold) {
  ASSERT_OK(nets_->Prepare(Spec(1)));
  struct Told {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> repaired, links;
  };
  // The thread that tells lives longer than this test's body.
  const auto told = std::make_shared<Told>();
  const auto note = [told](std::vector<std::string> Told::*into, const std::string& text) {
    const std::lock_guard lock(told->mutex);
    ((*told).*into).push_back(text);
    told->changed.notify_all();
  };
  ASSERT_OK(
      nets_->node().Watch({[note](const std::string& veth) { note(&Told::links, veth); },
                           [note](const std::string& what) { note(&Told::repaired, what); }}));
  // One look may find that several things are missing.
  const auto expect_told = [&](std::vector<std::string> Told::*of, const std::string& text) {
    std::unique_lock lock(told->mutex);
    const auto tells = [&](const std::string& each) { return each.find(text) != each.npos; };
    std::vector<std::string>& said = (*told).*of;
    EXPECT_TRUE(told->changed.wait_for(lock, std::chrono::milliseconds(kLongest), [&] {
      return std::any_of(said.begin(), said.end(), tells);
    })) << text;
    said.clear();
  };
  ASSERT_OK(host::ApplyNft("flush ruleset"));
  expect_told(&Told::repaired, "table inet dormouse");
  ASSERT_OK(host::ApplyNft("flush chain inet dormouse postrouting"));
  expect_told(&Told::repaired, "table inet dormouse");
  ASSERT_OK(ForgetRoutingRules());
  expect_told(&Told::repaired, "routing rules");
  ASSERT_OK(WriteKernelFile(kForwarding, "0"));
  expect_told(&Told::repaired, "net.ipv4.ip_forward");
  ASSERT_OK(FlushAddresses(VethName(Spec(1).short_id)));
  expect_told(&Told::links, VethName(Spec(1).short_id));
  EXPECT_GE(nets_->node().state().repairs, 4);
  EXPECT_FALSE(nets_->node().state().broken);
  EXPECT_EQ(nets_->node().Repair().value(), "");
}

TEST_P(SandboxNetTest, AllowOpensAndDenyCloses) {
  SandboxNetSpec spec = Spec(1);
  spec.policy.allow = {"172.16.9.0/24", "169.254.0.0/16"};
  spec.policy.deny = {"198.51.100.0/24"};
  ASSERT_OK(nets_->Prepare(spec));
  const UniqueFd vmm = VmmSocket(spec);
  const UniqueFd open = UdpSocket(outside_.get(), kPublic, 9000);
  const UniqueFd inside = UdpSocket(outside_.get(), kPrivate, 9000);
  const UniqueFd metadata = UdpSocket(outside_.get(), kMetadata, 80);
  EXPECT_TRUE(Arrives(vmm.get(), inside.get(), kPrivate, 9000));
  EXPECT_FALSE(Arrives(vmm.get(), open.get(), kPublic, 9000, kDropped));
  EXPECT_FALSE(Arrives(vmm.get(), metadata.get(), kMetadata, 80, kDropped))
      << "credentials of the node, whatever is allowed";
}

TEST_P(SandboxNetTest, TheNodeItselfIsRefusedEvenWhenOpen) {
  ASSERT_OK(nets_->Prepare(Spec(1, Egress::kOpen)));
  const UniqueFd vmm = VmmSocket(Spec(1));
  const UniqueFd kubelet = UdpSocket(-1, "0.0.0.0", 10250);
  ExpectOnline(vmm.get());
  EXPECT_FALSE(Arrives(vmm.get(), kubelet.get(), kNodeAddress, 10250, kDropped));
  EXPECT_FALSE(Arrives(vmm.get(), kubelet.get(), "10.201.0.1", 10250, kDropped));
  const UniqueFd world = UdpSocket(outside_.get(), kPublic, 0);
  EXPECT_TRUE(Arrives(world.get(), kubelet.get(), kNodeAddress, 10250))
      << "others are none of our business";
}

TEST_P(SandboxNetTest, SandboxesDoNotReachEachOtherNorSpoof) {
  ASSERT_OK(nets_->Prepare(Spec(1, Egress::kOpen)));
  ASSERT_OK(nets_->Prepare(Spec(2, Egress::kOpen)));
  const UniqueFd one = VmmSocket(Spec(1));
  ExpectOnline(one.get());
  const UniqueFd two = UdpSocket(nets_->Open(Spec(2))->get(), Spec(2).host_address, 9000);
  EXPECT_FALSE(Arrives(one.get(), two.get(), Spec(2).host_address, 9000, kDropped));
  // An address that is another's, or nobody's: a veth is heard as the one that the node routes to
  // it.
  const auto netns = nets_->Open(Spec(1));
  const UniqueFd open = UdpSocket(outside_.get(), kPublic, 9000);
  for (const std::string& address : {std::string("10.201.0.77"), Spec(2).host_address}) {
    ASSERT_OK(host::RunInNetNs(netns->get(), [&]() -> Result<> {
      DORMOUSE_ASSIGN(RouteSocket inside, RouteSocket::Open());
      return inside.AddAddress(kInnerVeth, address + "/32");
    }));
    const UniqueFd spoof = UdpSocket(netns->get(), address, 0);
    EXPECT_FALSE(Arrives(spoof.get(), open.get(), kPublic, 9000, kDropped)) << address;
  }
}

TEST_P(SandboxNetTest, OnlyTheNodeOpensConnectionsToTheGuest) {
  ASSERT_OK(nets_->Prepare(Spec(1)));
  const UniqueFd tap = AttachTap(Spec(1));
  const UniqueFd node = UdpSocket(-1, "0.0.0.0", 0);
  EXPECT_TRUE(ReachesTap(tap.get(), node.get()));
  ASSERT_OK(host::RunInNetNs(outside_.get(), []() -> Result<> {
    DORMOUSE_ASSIGN(RouteSocket world, RouteSocket::Open());
    return world.ReplaceRoute("world", "10.201.0.0/16", kNodeAddress);
  }));
  const UniqueFd world = UdpSocket(outside_.get(), kPublic, 0);
  EXPECT_FALSE(ReachesTap(tap.get(), world.get(), kDropped));
  ASSERT_OK(host::ApplyNft("flush ruleset"));
  EXPECT_FALSE(ReachesTap(tap.get(), world.get(), kDropped))
      << "whatever became of the node's table";
}

// virtio header, Ethernet, IPv4, UDP (without a checksum), one byte.
std::string DatagramFrame(const std::string& from, const std::string& to, uint16_t port) {
  std::string frame(10, '\0');
  frame += std::string("\x02\xfc\0\0\0\x01\x02\xfc\0\0\0\x05\x08\0", 14);
  std::string header("\x45\0\0\x1d\0\0\0\0\x40\x11\0\0", 12);
  for (const std::string& address : {from, to}) {
    const in_addr number = SocketAddress(address, 0).sin_addr;
    header.append(reinterpret_cast<const char*>(&number), sizeof(number));
  }
  uint32_t sum = 0;
  for (size_t i = 0; i < header.size(); i += 2) {
    sum += static_cast<unsigned char>(header[i]) * 256U + static_cast<unsigned char>(header[i + 1]);
  }
  const uint32_t checksum = ~((sum & 0xffffU) + (sum >> 16)) & 0xffffU;
  header[10] = static_cast<char>(checksum >> 8);
  header[11] = static_cast<char>(checksum & 0xffU);
  const char high = static_cast<char>(port >> 8);
  const char low = static_cast<char>(port & 0xff);
  return frame + header + std::string{high, low, high, low, 0, 9, 0, 0, 'x'};
}

TEST_P(SandboxNetTest, AGuestIsHeardWithItsSandboxesAddressOrNotAtAll) {
  ASSERT_OK(nets_->Prepare(Spec(1)));
  const UniqueFd tap = AttachTap(Spec(1));
  const UniqueFd world = UdpSocket(outside_.get(), kPublic, 9000);
  const auto sends = [&](const std::string& from, int timeout) {
    const std::string frame = DatagramFrame(from, kPublic, 9000);
    EXPECT_EQ(::write(tap.get(), frame.data(), frame.size()), static_cast<ssize_t>(frame.size()));
    pollfd entry{world.get(), POLLIN, 0};
    char byte = 0;
    return ::poll(&entry, 1, timeout) > 0 && ::recv(world.get(), &byte, 1, 0) == 1;
  };
  EXPECT_TRUE(sends(kGuestAddress, kLongest)) << "the node lets nothing else through";
  EXPECT_FALSE(sends("169.254.0.20", kDropped));
  EXPECT_FALSE(sends(Spec(1).host_address, kDropped));
}

}  // namespace
}  // namespace dormouse::net
