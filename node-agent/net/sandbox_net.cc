#include "node-agent/net/sandbox_net.h"

#include <functional>

#include "node-agent/host/netlink.h"
#include "node-agent/host/netns.h"
#include "node-agent/host/nft.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/files.h"

namespace dormouse::net {
namespace {

using host::RouteSocket;

// TEST-NET-1: nowhere, so by the default route.
constexpr char kAnywhere[] = "192.0.2.1";

const auto kNothing = []() -> Result<> { return {}; };

// Runs one step between its two failpoints.
Result<> Step(const SandboxNetSpec& spec, const std::string& name,
              const std::function<Result<>()>& work) {
  DORMOUSE_TRY(failpoint::Hit(name, spec.subject));
  DORMOUSE_TRY(work());
  return failpoint::Hit(name + ".done", spec.subject);
}

// kAlreadyExists when there is a veth of its name that is another's. One without an alias is ours,
// half made.
Result<> CheckOwner(RouteSocket* node, const SandboxNetSpec& spec) {
  const std::string veth = VethName(spec.short_id);
  DORMOUSE_ASSIGN(const auto link, node->FindLink(veth));
  if (link && !link->alias.empty() && link->alias != spec.uid)
    return Fail(ErrorCode::kAlreadyExists, "veth " + veth + " belongs to " + link->alias);
  return {};
}

// For a namespace without one.
Result<> MakeVeth(RouteSocket* node, const SandboxNetSpec& spec, int netns) {
  const std::string veth = VethName(spec.short_id);
  auto made = node->CreateVeth({veth, kInnerVeth, netns});
  if (made || made.error().code() != ErrorCode::kAlreadyExists) return made;
  // Ours, of a namespace that has lost its name, or another sandbox's.
  DORMOUSE_TRY(CheckOwner(node, spec));
  DORMOUSE_TRY(node->DeleteLink(veth));
  return node->CreateVeth({veth, kInnerVeth, netns});
}

}  // namespace

SandboxNets::SandboxNets(const host::HostNamespaces& host, NetConfig config)
    : host_(host),
      config_(std::move(config)),
      pool_(config_.pool, RulesOf({})),
      node_(config_.range.cidr(), config_.range.gateway(), config_.resolvers) {}

std::string SandboxNets::NetNsPath(const std::string& short_id) const {
  return config_.netns_directory + "/" + short_id;
}

Result<> SandboxNets::PrepareNode() {
  DORMOUSE_TRY(host_.RunInMounts([&] { return MakeDirectories(config_.netns_directory, 0700); }));
  auto prepared = node_.Prepare();
  if (!prepared) return Fail(prepared.error().Wrap("the node's network"));
  pool_.Start();
  return {};
}

Result<SandboxNetState> SandboxNets::Observe(const SandboxNetSpec& spec) {
  SandboxNetState state;
  DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
  DORMOUSE_ASSIGN(const auto veth, node.FindLink(VethName(spec.short_id)));
  DORMOUSE_ASSIGN(const auto to_sandbox,
                  RouteSocket::LinkTowards(config_.range.gateway(), spec.host_address));
  state.veth = veth && veth->alias == spec.uid && veth->up && to_sandbox == veth->index;
  auto netns = Open(spec);
  if (!netns) {
    if (netns.error().code() != ErrorCode::kNotFound) return Fail(netns.error());
    return state;
  }
  state.netns = true;
  DORMOUSE_TRY(host::RunInNetNs(netns->get(), [&]() -> Result<> {
    DORMOUSE_ASSIGN(RouteSocket inside, RouteSocket::Open());
    DORMOUSE_ASSIGN(const auto tap, inside.FindLink(kTapName));
    state.tap = tap && tap->up;
    DORMOUSE_ASSIGN(const auto eth0, inside.FindLink(kInnerVeth));
    DORMOUSE_ASSIGN(const auto out, RouteSocket::LinkTowards(spec.host_address, kAnywhere));
    state.veth = state.veth && eth0 && out == eth0->index;
    DORMOUSE_ASSIGN(const auto comment, host::ReadTableComment(kTableName));
    state.rules = comment.value_or("");
    return {};
  }));
  return state;
}

Result<> SandboxNets::Prepare(const SandboxNetSpec& spec) {
  DORMOUSE_TRY(CheckPolicy(spec.policy));
  DORMOUSE_TRY(config_.range.SlotOf(spec.host_address));
  const NetPool::Work work(&pool_);
  const auto prepare = [&]() -> Result<> {
    auto netns = Open(spec);
    if (netns) return Complete(spec, netns->get());
    if (netns.error().code() != ErrorCode::kNotFound) return Fail(netns.error());
    return Settle(spec);
  };
  auto prepared = prepare();
  if (!prepared) return Fail(prepared.error().Wrap("network of " + spec.short_id));
  return {};
}

Result<> SandboxNets::Settle(const SandboxNetSpec& spec) {
  std::optional<FurnishedNet> net;
  const auto furnish_and_name = [&]() -> Result<> {
    const SandboxRules rules = RulesOf(spec.policy);
    net = pool_.Take(rules.policy);
    if (!net) {
      DORMOUSE_ASSIGN(net, Furnish(rules));
    }
    return host::BindNetNs(host_, net->netns.get(), NetNsPath(spec.short_id));
  };
  const auto hand_over_tap = [&]() -> Result<> {
    DORMOUSE_TRY(host::SetTapOwner(net->tap.get(), spec.vmm_uid));
    net->tap.Reset();
    return net->inside.SetUp(kTapName);
  };
  DORMOUSE_TRY(Step(spec, "net.netns", furnish_and_name));
  DORMOUSE_TRY(Step(spec, "net.rules", kNothing));  // they came with it
  DORMOUSE_TRY(Step(spec, "net.tap", hand_over_tap));
  return Step(spec, "net.veth", [&]() -> Result<> {
    DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
    DORMOUSE_TRY(MakeVeth(&node, spec, net->netns.get()));
    return ConnectVeth(spec, &node, &net->inside);
  });
}

// What both ways end with. The node's end is up and ours last: whoever looks takes that for the
// whole.
Result<> SandboxNets::ConnectVeth(const SandboxNetSpec& spec, RouteSocket* node,
                                  RouteSocket* inside) {
  const std::string veth = VethName(spec.short_id);
  const std::string gateway = config_.range.gateway();
  DORMOUSE_TRY(inside->AddPeerAddress(kInnerVeth, spec.host_address, gateway));
  DORMOUSE_TRY(inside->SetUp(kInnerVeth));
  DORMOUSE_TRY(inside->ReplaceRoute(kInnerVeth, "0.0.0.0/0", gateway));
  DORMOUSE_TRY(TurnOffIpv6(veth));
  // For the way back to a sandbox that asks a resolver on the node (node_net.h).
  DORMOUSE_TRY(WriteKernelFile("/proc/sys/net/ipv4/conf/" + veth + "/src_valid_mark", "1"));
  DORMOUSE_TRY(node->AddPeerAddress(veth, gateway, spec.host_address));
  return node->SetUp(veth, spec.uid);
}

Result<> SandboxNets::Complete(const SandboxNetSpec& spec, int netns) {
  DORMOUSE_TRY(Step(spec, "net.netns", kNothing));
  // The rules come before the first link to the outside.
  DORMOUSE_TRY(EnsureRules(spec, netns));
  DORMOUSE_TRY(EnsureTap(spec, netns));
  return EnsureVeth(spec, netns);
}

Result<> SandboxNets::EnsureTap(const SandboxNetSpec& spec, int netns) {
  return Step(spec, "net.tap", [&] {
    return host::RunInNetNs(netns, [&]() -> Result<> {
      DORMOUSE_TRY(TurnOffIpv6());
      DORMOUSE_TRY(host::CreateTap({kTapName, spec.vmm_uid, kTapMac}));
      DORMOUSE_ASSIGN(RouteSocket inside, RouteSocket::Open());
      DORMOUSE_TRY(inside.AddAddress(kTapName, TapAddress()));
      DORMOUSE_TRY(inside.SetUp(kTapName));
      return WriteKernelFile(kForwarding, "1");
    });
  });
}

Result<> SandboxNets::EnsureVeth(const SandboxNetSpec& spec, int netns) {
  return Step(spec, "net.veth", [&]() -> Result<> {
    DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
    DORMOUSE_TRY(CheckOwner(&node, spec));
    std::optional<RouteSocket> inside;
    bool joined = false;
    DORMOUSE_TRY(host::RunInNetNs(netns, [&]() -> Result<> {
      DORMOUSE_ASSIGN(inside, RouteSocket::Open());
      DORMOUSE_ASSIGN(const auto inner, inside->FindLink(kInnerVeth));
      joined = inner.has_value();
      return {};
    }));
    if (!joined) DORMOUSE_TRY(MakeVeth(&node, spec, netns));
    DORMOUSE_TRY(ConnectVeth(spec, &node, &*inside));
    // It comes with the address, and can go without it.
    return node.ReplaceDirectRoute(VethName(spec.short_id), spec.host_address,
                                   config_.range.gateway());
  });
}

SandboxRules SandboxNets::RulesOf(const EgressPolicy& policy) const {
  SandboxRules rules{config_.range.gateway(), policy, config_.deny_always, config_.allow_platform};
  rules.always_denied.push_back(config_.range.cidr());
  if (rules.policy.resolvers.empty()) rules.policy.resolvers = config_.resolvers;
  return rules;
}

Result<> SandboxNets::EnsureRules(const SandboxNetSpec& spec, int netns) {
  return Step(spec, "net.rules", [&] {
    const std::string table = SandboxTable(RulesOf(spec.policy));
    return host::RunInNetNs(netns, [&]() -> Result<> {
      DORMOUSE_ASSIGN(const auto comment, host::ReadTableComment(kTableName));
      if (comment == CommentOf(table)) return {};
      // A transaction that deletes waits for an RCU grace period, and most namespaces are new.
      auto made = host::ApplyNft(Created(table));
      if (made || made.error().code() != ErrorCode::kAlreadyExists) return made;
      return host::ApplyNft(kReplaceTable + table);
    });
  });
}

std::string SandboxNets::RulesFor(const EgressPolicy& policy) const {
  return CommentOf(SandboxTable(RulesOf(policy)));
}

Result<> SandboxNets::UpdateRules(const SandboxNetSpec& spec) {
  DORMOUSE_TRY(CheckPolicy(spec.policy));
  const auto netns = Open(spec);
  if (!netns && netns.error().code() == ErrorCode::kNotFound) return {};
  if (!netns) return Fail(netns.error());
  return EnsureRules(spec, netns->get());
}

Result<> SandboxNets::Remove(const SandboxNetSpec& spec) {
  const NetPool::Work work(&pool_);
  const auto remove = [&]() -> Result<> {
    DORMOUSE_TRY(Step(spec, "net.remove-veth", [&]() -> Result<> {
      DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
      return node.DeleteLink(VethName(spec.short_id));
    }));
    return Step(spec, "net.remove-netns",
                [&] { return host::DeleteNetNs(host_, NetNsPath(spec.short_id)); });
  };
  auto removed = remove();
  if (!removed) return Fail(removed.error().Wrap("network of " + spec.short_id));
  return {};
}

Result<UniqueFd> SandboxNets::Open(const SandboxNetSpec& spec) {
  return host::OpenNetNs(host_, NetNsPath(spec.short_id));
}

}  // namespace dormouse::net
