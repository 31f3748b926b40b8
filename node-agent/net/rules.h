// nftables rules as text, in nft's own language: what the node's namespace and each sandbox's get.
//
// Two tables, both "inet dormouse", both ours alone. What forbids is in the sandbox's namespace,
// where no firewall of the node reaches it: the egress policy, for what the guest sends and for
// what a hostile VMM would send itself, beside the translation between guest and host-side address.
// The node's table lets out (masquerade), and is the second wall around the node's own addresses;
// the first are routes (node_net.h), which are there when the table is not.
//
// The policy is asked for each packet of a connection, in both directions, by where the connection
// was opened to: so a policy that is tightened ends what it no longer allows with the next packet.
//
// A table carries a digest of its own text as its comment: what is in force can be read back
// without reading the rules. IPv4 only; IPv6 is dropped. Pure: golden files in testdata/ show the
// whole of each. Thread-safe.
#pragma once

#include <cstdint>
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

/// Metadata and platform addresses of clouds, which hand out credentials of the node or speak for
/// it. Denied whatever the policy says.
extern const std::vector<std::string> kPlatformAddresses;

struct SandboxRules {
  std::string gateway;  ///< the node's end: only it may open connections to the guest
  EgressPolicy policy;
  std::vector<std::string> always_denied{};  ///< CIDRs: sandboxes' own range, the administrator's
  /// CIDRs: of the platforms' addresses, those that the policy decides about.
  std::vector<std::string> platform_allowed{};
};

/// kInvalid names the entry that is no CIDR or address.
Result<> CheckPolicy(const EgressPolicy& policy);

inline constexpr char kTableName[] = "dormouse";  ///< of family inet
/// Before a table's text: in its one transaction the old one goes, if there was one.
inline constexpr char kReplaceTable[] = "add table inet dormouse\ndelete table inet dormouse\n";

/// The whole table of a sandbox's namespace, which has no word of the sandbox's own address: that
/// is eth0's, whatever it is (so that it can be made before the sandbox is known). To be added
/// where there is none or after its deletion in one transaction. All CIDRs have passed CheckPolicy.
[[nodiscard]] std::string SandboxTable(const SandboxRules& rules);

struct NodeRules {
  std::string range;                   ///< of host-side addresses
  std::vector<std::string> resolvers;  ///< of the node: DNS to them is let in where they are local
};

/// The node's table, in place of the one before: one transaction, no gap. It has no word of any
/// sandbox, so that no start and no end need change it.
[[nodiscard]] std::string NodeTable(const NodeRules& rules);

/// `table` in one transaction that is refused where there is one.
[[nodiscard]] std::string Created(const std::string& table);
/// The comment that a table of that text has in the kernel.
[[nodiscard]] std::string CommentOf(const std::string& table);

/// A packet with this mark may find its way between a sandbox and the node itself (node_net.h).
/// Ours for as long as the packet is in the node's namespace.
inline constexpr uint32_t kMark = 0x20;

}  // namespace dormouse::net
