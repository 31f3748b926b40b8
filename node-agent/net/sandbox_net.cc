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

constexpr char kReplaceTable[] = "add table inet dormouse\ndelete table inet dormouse\n";
// Only names are read: what is in the tables would be some hundred objects.
constexpr char kTables[] = "list tables inet";
constexpr char kOurTable[] = "\"name\": \"dormouse\"";

const auto kNothing = []() -> Result<> { return {}; };

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

// Whether the sandbox's veth is there; kAlreadyExists when it is another's. One without an alias is
// ours, half made.
Result<bool> CheckOwner(RouteSocket* node, const SandboxNetSpec& spec) {
  const std::string veth = VethName(spec.short_id);
  DORMOUSE_ASSIGN(const auto link, node->FindLink(veth));
  if (link && !link->alias.empty() && link->alias != spec.uid)
    return Fail(ErrorCode::kAlreadyExists, "veth " + veth + " belongs to " + link->alias);
  return link.has_value();
}

}  // namespace

SandboxNets::SandboxNets(const host::HostNamespaces& host, NetConfig config)
    : host_(host), config_(std::move(config)), pool_(config_.pool, RulesOf({})) {}

std::string SandboxNets::NetNsPath(const std::string& short_id) const {
  return config_.netns_directory + "/" + short_id;
}

Result<> SandboxNets::PrepareNode() {
  DORMOUSE_TRY(host_.RunInMounts([&] { return MakeDirectories(config_.netns_directory, 0700); }));
  DORMOUSE_TRY(WriteKernelFile(kForwarding, "1"));
  auto applied = ApplyToNode(NodeTable({config_.range.cidr(), config_.resolvers}));
  if (!applied) return Fail(applied.error().Wrap("the node's rules"));
  DORMOUSE_TRY(RemoveStaleVeths());
  pool_.Start();
  return {};
}

Result<host::NftContext*> SandboxNets::NodeContext() {
  if (!node_nft_) {
    DORMOUSE_ASSIGN(node_nft_, host::NftContext::Open());
  }
  return &*node_nft_;
}

Result<> SandboxNets::ApplyToNode(const std::string& commands) {
  const std::lock_guard lock(node_table_);
  DORMOUSE_ASSIGN(host::NftContext * node, NodeContext());
  return node->Apply(commands);
}

Result<std::string> SandboxNets::ReadNode(const std::string& command) {
  const std::lock_guard lock(node_table_);
  DORMOUSE_ASSIGN(host::NftContext * node, NodeContext());
  return node->ReadJson(command);
}

Result<SandboxNetState> SandboxNets::Observe(const SandboxNetSpec& spec) {
  SandboxNetState state;
  DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
  DORMOUSE_ASSIGN(const auto veth, node.FindLink(VethName(spec.short_id)));
  state.veth = veth && veth->alias == spec.uid && veth->up;
  DORMOUSE_ASSIGN(state.node_rules, IsThere(ReadNode(ElementQuery(spec))));
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
    DORMOUSE_ASSIGN(const std::string tables, host::ReadNftJson(kTables));
    state.rules = tables.find(kOurTable) != std::string::npos;
    return {};
  }));
  return state;
}

Result<> SandboxNets::Prepare(const SandboxNetSpec& spec, std::optional<FurnishedNet> made) {
  DORMOUSE_TRY(CheckPolicy(spec.policy));
  DORMOUSE_TRY(config_.range.SlotOf(spec.host_address));
  const NetPool::Work work(&pool_);
  const auto prepare = [&]() -> Result<> {
    auto netns = Open(spec);
    if (netns) return Complete(spec, netns->get());
    if (netns.error().code() != ErrorCode::kNotFound) return Fail(netns.error());
    return Settle(spec, std::move(made));
  };
  auto prepared = prepare();
  if (!prepared) return Fail(prepared.error().Wrap("network of " + spec.short_id));
  return {};
}

Result<> SandboxNets::Settle(const SandboxNetSpec& spec, std::optional<FurnishedNet> net) {
  const auto furnish_and_name = [&]() -> Result<> {
    const SandboxRules rules = RulesOf(spec.policy);
    if (!net) net = pool_.Take(rules.policy);
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
  DORMOUSE_TRY(EnsureNodeRules(spec));
  return Step(spec, "net.veth", [&] { return TakeVeth(spec, &*net); });
}

Result<> SandboxNets::TakeVeth(const SandboxNetSpec& spec, FurnishedNet* net) {
  const std::string veth = VethName(spec.short_id);
  DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
  DORMOUSE_TRY(net->inside.AddAddress(kInnerVeth, spec.host_address + "/32"));
  auto renamed = node.RenameAndSetUp(net->veth, veth);
  if (!renamed && renamed.error().code() == ErrorCode::kAlreadyExists) {
    // Its namespace has lost its name, or we would not be here.
    DORMOUSE_TRY(CheckOwner(&node, spec));
    DORMOUSE_TRY(node.DeleteLink(veth));
    renamed = node.RenameAndSetUp(net->veth, veth);
  }
  if (!renamed) return renamed;
  DORMOUSE_TRY(node.ReplaceRoute(veth, spec.host_address + "/32", "", config_.range.gateway()));
  return node.SetAlias(veth, spec.uid);  // last: Observe takes it for the whole
}

Result<> SandboxNets::Complete(const SandboxNetSpec& spec, int netns) {
  DORMOUSE_TRY(Step(spec, "net.netns", kNothing));
  // The rules come before the first link to the outside.
  DORMOUSE_TRY(EnsureRules(spec, netns));
  DORMOUSE_TRY(EnsureTap(spec, netns));
  DORMOUSE_TRY(EnsureNodeRules(spec));
  return EnsureVeth(spec, netns);
}

Result<> SandboxNets::EnsureTap(const SandboxNetSpec& spec, int netns) {
  return Step(spec, "net.tap", [&] {
    return host::RunInNetNs(netns, [&]() -> Result<> {
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
    const std::string veth = VethName(spec.short_id);
    const std::string gateway = config_.range.gateway();
    DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
    DORMOUSE_ASSIGN(const auto owned, CheckOwner(&node, spec));
    const auto configure_inside = [&]() -> Result<> {
      DORMOUSE_ASSIGN(RouteSocket inside, RouteSocket::Open());
      DORMOUSE_TRY(inside.AddAddress(kInnerVeth, spec.host_address + "/32"));
      DORMOUSE_TRY(inside.SetUp(kInnerVeth));
      return AddInnerRoutes(&inside, gateway);
    };
    if (!owned) {
      // An inner end whose other one was not renamed yet.
      DORMOUSE_TRY(host::RunInNetNs(netns, []() -> Result<> {
        DORMOUSE_ASSIGN(RouteSocket inside, RouteSocket::Open());
        return inside.DeleteLink(kInnerVeth);
      }));
      DORMOUSE_TRY(node.CreateVeth({veth, "", kInnerVeth, netns}));
    }
    DORMOUSE_TRY(host::RunInNetNs(netns, configure_inside));
    DORMOUSE_TRY(node.AddAddress(veth, gateway + "/32"));
    DORMOUSE_TRY(node.SetUp(veth));
    DORMOUSE_TRY(node.ReplaceRoute(veth, spec.host_address + "/32", "", gateway));
    return node.SetAlias(veth, spec.uid);  // last: Observe takes it for the whole
  });
}

SandboxRules SandboxNets::RulesOf(const EgressPolicy& policy) const {
  SandboxRules rules{config_.range.gateway(), policy};
  if (rules.policy.resolvers.empty()) rules.policy.resolvers = config_.resolvers;
  return rules;
}

Result<> SandboxNets::EnsureRules(const SandboxNetSpec& spec, int netns) {
  return Step(spec, "net.rules", [&] {
    const std::string table = SandboxTable(RulesOf(spec.policy));
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
    return ApplyToNode(NodeElementAdd(VethName(spec.short_id), spec.host_address));
  });
}

Result<> SandboxNets::UpdateRules(const SandboxNetSpec& spec) {
  DORMOUSE_TRY(CheckPolicy(spec.policy));
  DORMOUSE_ASSIGN(const UniqueFd netns, Open(spec));
  return EnsureRules(spec, netns.get());
}

Result<> SandboxNets::Remove(const SandboxNetSpec& spec) {
  const NetPool::Work work(&pool_);
  const auto remove = [&]() -> Result<> {
    DORMOUSE_TRY(Step(spec, "net.remove-veth", [&]() -> Result<> {
      DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
      return node.DeleteLink(VethName(spec.short_id));
    }));
    DORMOUSE_TRY(Step(spec, "net.remove-node-rules", [&]() -> Result<> {
      auto deleted = ApplyToNode(NodeElementDelete(VethName(spec.short_id), spec.host_address));
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
