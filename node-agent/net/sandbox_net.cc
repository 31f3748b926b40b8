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

constexpr char kForwarding[] = "/proc/sys/net/ipv4/ip_forward";
constexpr char kCreateTable[] = "create table inet dormouse\n";
constexpr char kReplaceTable[] = "add table inet dormouse\ndelete table inet dormouse\n";
constexpr char kOurTable[] = "list table inet dormouse";

// Runs one step between its two failpoints.
Result<> Step(const SandboxNetSpec& spec, const std::string& name,
              const std::function<Result<>()>& work) {
  DORMOUSE_TRY(failpoint::Hit(name, spec.subject));
  DORMOUSE_TRY(work());
  return failpoint::Hit(name + ".done", spec.subject);
}

Result<bool> IsThere(const Result<std::string>& answer) {
  if (answer) return true;
  if (answer.error().code() == ErrorCode::kNotFound) return false;
  return Fail(answer.error());
}

std::string ElementQuery(const SandboxNetSpec& spec) {
  return "get element inet dormouse sandboxes { \"" + VethName(spec.short_id) + "\" . " +
         spec.host_address + " }";
}

}  // namespace

SandboxNets::SandboxNets(const host::HostNamespaces& host, NetConfig config)
    : host_(host), config_(std::move(config)) {}

std::string SandboxNets::NetNsPath(const std::string& short_id) const {
  return config_.netns_directory + "/" + short_id;
}

Result<> SandboxNets::PrepareNode() {
  DORMOUSE_TRY(host_.RunInMounts([&] { return MakeDirectories(config_.netns_directory, 0700); }));
  DORMOUSE_TRY(WriteKernelFile(kForwarding, "1"));
  const std::lock_guard lock(node_table_);
  auto applied = host::ApplyNft(NodeTable({config_.range.cidr(), config_.resolvers}));
  if (!applied) return Fail(applied.error().Wrap("the node's rules"));
  return {};
}

Result<SandboxNetState> SandboxNets::Observe(const SandboxNetSpec& spec) {
  SandboxNetState state;
  DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
  DORMOUSE_ASSIGN(const auto veth, node.FindLink(VethName(spec.short_id)));
  state.veth = veth && veth->alias == spec.uid && veth->up;
  DORMOUSE_ASSIGN(state.node_rules, IsThere(host::ReadNftJson(ElementQuery(spec))));
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
    DORMOUSE_ASSIGN(state.rules, IsThere(host::ReadNftJson(kOurTable)));
    return {};
  }));
  return state;
}

Result<> SandboxNets::Prepare(const SandboxNetSpec& spec) {
  DORMOUSE_TRY(CheckPolicy(spec.policy));
  DORMOUSE_TRY(config_.range.SlotOf(spec.host_address));
  const auto prepare = [&]() -> Result<> {
    DORMOUSE_TRY(EnsureNetNs(spec));
    DORMOUSE_ASSIGN(const UniqueFd netns, Open(spec));
    // The rules come before the first link to the outside.
    DORMOUSE_TRY(EnsureRules(spec, netns.get()));
    DORMOUSE_TRY(EnsureTap(spec, netns.get()));
    DORMOUSE_TRY(EnsureNodeRules(spec));
    return EnsureVeth(spec, netns.get());
  };
  auto prepared = prepare();
  if (!prepared) return Fail(prepared.error().Wrap("network of " + spec.short_id));
  return {};
}

Result<> SandboxNets::EnsureNetNs(const SandboxNetSpec& spec) {
  return Step(spec, "net.netns",
              [&] { return host::CreateNetNs(host_, NetNsPath(spec.short_id)); });
}

Result<> SandboxNets::EnsureTap(const SandboxNetSpec& spec, int netns) {
  return Step(spec, "net.tap", [&] {
    return host::RunInNetNs(netns, [&]() -> Result<> {
      DORMOUSE_TRY(host::CreateTap({kTapName, spec.vmm_uid, kTapMac}));
      DORMOUSE_ASSIGN(RouteSocket inside, RouteSocket::Open());
      const std::string address =
          std::string(kGuestGateway) + "/" + std::to_string(kGuestPrefixLength);
      DORMOUSE_TRY(inside.AddAddress(kTapName, address));
      DORMOUSE_TRY(inside.SetUp(kTapName));
      return WriteKernelFile(kForwarding, "1");
    });
  });
}

Result<> SandboxNets::EnsureVeth(const SandboxNetSpec& spec, int netns) {
  return Step(spec, "net.veth", [&]() -> Result<> {
    const std::string veth = VethName(spec.short_id);
    const std::string gateway = config_.range.gateway();
    DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
    DORMOUSE_TRY(node.CreateVeth({veth, spec.uid, kInnerVeth, netns}));
    const auto configure_inside = [&]() -> Result<> {
      DORMOUSE_ASSIGN(RouteSocket inside, RouteSocket::Open());
      DORMOUSE_TRY(inside.AddAddress(kInnerVeth, spec.host_address + "/32"));
      DORMOUSE_TRY(inside.SetUp(kInnerVeth));
      DORMOUSE_TRY(inside.ReplaceRoute(kInnerVeth, gateway + "/32", "", ""));
      return inside.ReplaceRoute(kInnerVeth, "0.0.0.0/0", gateway, "");
    };
    DORMOUSE_TRY(host::RunInNetNs(netns, configure_inside));
    DORMOUSE_TRY(node.AddAddress(veth, gateway + "/32"));
    DORMOUSE_TRY(node.SetUp(veth));
    return node.ReplaceRoute(veth, spec.host_address + "/32", "", gateway);
  });
}

SandboxRules SandboxNets::RulesOf(const SandboxNetSpec& spec) const {
  SandboxRules rules{spec.host_address, config_.range.gateway(), spec.policy};
  if (rules.policy.resolvers.empty()) rules.policy.resolvers = config_.resolvers;
  return rules;
}

Result<> SandboxNets::EnsureRules(const SandboxNetSpec& spec, int netns) {
  return Step(spec, "net.rules", [&] {
    const std::string table = SandboxTable(RulesOf(spec));
    return host::RunInNetNs(netns, [&]() -> Result<> {
      // A transaction that deletes waits for an RCU grace period, and most namespaces are new.
      auto made = host::ApplyNft(kCreateTable + table);
      if (made || made.error().code() != ErrorCode::kAlreadyExists) return made;
      return host::ApplyNft(kReplaceTable + table);
    });
  });
}

Result<> SandboxNets::EnsureNodeRules(const SandboxNetSpec& spec) {
  return Step(spec, "net.node-rules", [&] {
    const std::lock_guard lock(node_table_);
    return host::ApplyNft(NodeElementAdd(VethName(spec.short_id), spec.host_address));
  });
}

Result<> SandboxNets::UpdateRules(const SandboxNetSpec& spec) {
  DORMOUSE_TRY(CheckPolicy(spec.policy));
  DORMOUSE_ASSIGN(const UniqueFd netns, Open(spec));
  return EnsureRules(spec, netns.get());
}

Result<> SandboxNets::Remove(const SandboxNetSpec& spec) {
  const auto remove = [&]() -> Result<> {
    DORMOUSE_TRY(Step(spec, "net.remove-veth", [&]() -> Result<> {
      DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
      return node.DeleteLink(VethName(spec.short_id));
    }));
    DORMOUSE_TRY(Step(spec, "net.remove-node-rules", [&]() -> Result<> {
      const std::lock_guard lock(node_table_);
      auto deleted = host::ApplyNft(NodeElementDelete(VethName(spec.short_id), spec.host_address));
      if (!deleted && deleted.error().code() == ErrorCode::kNotFound) return {};
      return deleted;
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
