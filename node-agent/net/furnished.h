// A network namespace with all that is the same in every sandbox: rules, tap, inner end of a veth,
// routes. What is missing makes it a sandbox's own: a name, its address, the tap's owner, the name
// of the veth's outer end.
//
//   tap0 (.22), down [ NAT, default egress policy ] eth0, up, no address -- dmp<random>, down
//
// It has no name but its veth's, and lives as long as its descriptors: those of a dead agent go by
// themselves. Not thread-safe: one owner at a time, in the node's network namespace.
#pragma once

#include <string>

#include "node-agent/host/netlink.h"
#include "node-agent/net/rules.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::net {

inline constexpr char kForwarding[] = "/proc/sys/net/ipv4/ip_forward";

struct FurnishedNet {
  EgressPolicy policy;  ///< that its rules are of
  UniqueFd netns;
  host::RouteSocket inside;
  UniqueFd tap;      ///< attached; closed before a VMM may
  std::string veth;  ///< the outer end's name
};

Result<FurnishedNet> Furnish(const SandboxRules& rules);
/// Outer ends that belong to no living agent: once, before the first is furnished.
Result<> RemoveStaleVeths();

/// What Furnish does, for a namespace that has or lacks any of it, from a thread inside.
Result<> AddInnerRoutes(host::RouteSocket* inside, const std::string& gateway);
[[nodiscard]] std::string TapAddress();

}  // namespace dormouse::net
