// A sandbox's network: a namespace with a tap for its VMM, a veth to the node, and rules in both.
//
//   guest 169.254.0.21 -- tap0 (.22) [netns: NAT, egress policy] eth0 10.201.x.y -- dmv<id> [node]
//
// The same tap name, MAC and guest address in each, so a snapshot fits any sandbox. A new one
// begins as a furnished namespace (furnished.h), ready in the pool or made on the spot; what a
// crash left half-done is completed. Steps are failpoints ("net.netns", "net.tap", "net.veth",
// "net.rules"; ".done" after each). Thread-safe for different sandboxes. Called from threads in the
// node's network namespace.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/host/mounts.h"
#include "node-agent/net/address_plan.h"
#include "node-agent/net/net_pool.h"
#include "node-agent/net/node_net.h"
#include "node-agent/net/rules.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::net {

struct SandboxNetSpec {
  std::string uid;  ///< the object's; the veth's alias
  std::string short_id;
  std::string subject;       ///< "namespace/name", for failpoints
  std::string host_address;  ///< of AddressRange
  uid_t vmm_uid = 0;         ///< may attach to the tap
  EgressPolicy policy;
};

struct SandboxNetState {
  bool netns = false;
  bool tap = false;
  bool veth = false;  ///< with our UID as alias; each end finds the other by its address
  std::string rules;  ///< which are in force, as RulesFor tells them; empty: none of ours
  [[nodiscard]] bool Ready() const { return netns && tap && veth && !rules.empty(); }
  [[nodiscard]] bool Gone() const { return !netns && !veth; }
};

struct NetConfig {
  std::string netns_directory = "/run/dormouse/netns";
  AddressRange range;
  std::vector<std::string> resolvers;  ///< the node's, for guests that name none
  size_t pool = 0;                     ///< furnished namespaces of the default policy kept ready
  /// CIDRs that no sandbox reaches, and platform addresses (rules.h) that its policy decides about.
  std::vector<std::string> deny_always{}, allow_platform{};
};

class SandboxNets {
 public:
  SandboxNets(const host::HostNamespaces& host, NetConfig config);

  /// Once at the start: the node's own side (node_net.h). The pool of an agent that died goes, and
  /// ours begins to fill.
  Result<> PrepareNode();
  [[nodiscard]] NodeNet& node() { return node_; }
  [[nodiscard]] const NodeNet& node() const { return node_; }

  Result<SandboxNetState> Observe(const SandboxNetSpec& spec);
  /// All of it; idempotent. kAlreadyExists when the veth's name belongs to another UID.
  Result<> Prepare(const SandboxNetSpec& spec);
  /// What Observe finds where that policy is in force.
  [[nodiscard]] std::string RulesFor(const EgressPolicy& policy) const;
  /// Puts the policy in force where another is, in one transaction. Success where there is no
  /// namespace.
  Result<> UpdateRules(const SandboxNetSpec& spec);
  /// Veth and namespace; success when gone. Processes in the namespace keep it alive, nameless.
  Result<> Remove(const SandboxNetSpec& spec);
  /// For LaunchSpec::netns, and for dialling the guest from inside.
  Result<UniqueFd> Open(const SandboxNetSpec& spec);

  [[nodiscard]] std::string NetNsPath(const std::string& short_id) const;
  [[nodiscard]] const NetConfig& config() const { return config_; }
  [[nodiscard]] NetPool& pool() { return pool_; }

 private:
  /// For a sandbox that has no namespace.
  Result<> Settle(const SandboxNetSpec& spec);
  /// For one that has, in whatever state.
  Result<> Complete(const SandboxNetSpec& spec, int netns);
  Result<> EnsureTap(const SandboxNetSpec& spec, int netns);
  Result<> EnsureVeth(const SandboxNetSpec& spec, int netns);
  Result<> ConnectVeth(const SandboxNetSpec& spec, host::RouteSocket* node,
                       host::RouteSocket* inside);
  Result<> EnsureRules(const SandboxNetSpec& spec, int netns);
  [[nodiscard]] SandboxRules RulesOf(const EgressPolicy& policy) const;

  const host::HostNamespaces& host_;
  const NetConfig config_;
  NetPool pool_;
  NodeNet node_;
};

}  // namespace dormouse::net
