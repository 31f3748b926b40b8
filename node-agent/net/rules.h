// nftables rules as text, in nft's own language: what the node's namespace and each sandbox's get.
//
// Two tables, both "inet dormouse", both ours alone. In the sandbox's namespace: address
// translation between guest and host-side address, and the egress policy, for what the guest sends
// and for what a hostile VMM would send itself. In the node's: no spoofing, nothing from a sandbox
// to the node or to another sandbox, masquerade. IPv4 and IPv6; what is not allowed is dropped.
// Pure: golden files in testdata/ show the whole of each. Thread-safe.
#pragma once

#include <string>
#include <vector>

#include "node-agent/net/address_plan.h"
#include "src/common/base/result.h"

namespace dormouse::net {

enum class Egress {
  kRestricted,  ///< the Internet, but no private, link-local, metadata or node address
  kOpen,        ///< wherever the node may forward to, but not the node itself
  kNone,        ///< nothing; replies to what the node asks only
};

struct EgressPolicy {
  Egress egress = Egress::kRestricted;
  std::vector<std::string> allow;  ///< CIDRs, either family; opened beside Restricted, or in None
  std::vector<std::string> deny;   ///< CIDRs; before `allow`
  std::vector<std::string>
      resolvers;  ///< addresses that answer DNS (port 53) unless egress is None
  bool operator==(const EgressPolicy&) const = default;
};

struct SandboxRules {
  std::string gateway;  ///< the node's end: only it may open connections to the guest
  EgressPolicy policy;
};

/// kInvalid names the entry that is no CIDR or address.
Result<> CheckPolicy(const EgressPolicy& policy);

inline constexpr char kCreateTable[] = "create table inet dormouse\n";
/// Before a table's text: in its one transaction the old one goes, if there was one.
inline constexpr char kReplaceTable[] = "add table inet dormouse\ndelete table inet dormouse\n";

/// The whole table of a sandbox's namespace, which has no word of the sandbox's own address: that
/// is eth0's, whatever it is (so that it can be made before the sandbox is known). To be added
/// where there is none or after its deletion in one transaction. The policy has passed CheckPolicy.
[[nodiscard]] std::string SandboxTable(const SandboxRules& rules);

struct NodeRules {
  std::string range;                   ///< of host-side addresses
  std::vector<std::string> resolvers;  ///< of the node: DNS to them is let in where they are local
};

/// The node's table, in place of the one before: one transaction, no gap. It has no word of any
/// sandbox, so that no start and no end need change it.
[[nodiscard]] std::string NodeTable(const NodeRules& rules);

}  // namespace dormouse::net
