// A network namespace with all that is the same in every sandbox: rules, and a tap. What is missing
// makes it a sandbox's own: a name, the tap's owner, the veth. (A veth that waited here would have
// to be renamed, for which the kernel waits for a grace period of RCU: more than making one costs.)
//
//   tap0 (.22), down [ NAT, default egress policy ]
//
// It has no name, and lives as long as its descriptors: those of a dead agent go by themselves. Not
// thread-safe: one owner at a time, in the node's network namespace.
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
  UniqueFd tap;  ///< attached; closed before a VMM may
};

Result<FurnishedNet> Furnish(const SandboxRules& rules);
/// Of one link of the calling thread's namespace, or of all that it has and will have. Sandboxes
/// speak IPv4 alone, by their rules; the kernel would still solicit routers and report groups over
/// each link, and wake the guest behind the tap for it.
Result<> TurnOffIpv6(const std::string& link = "all");
[[nodiscard]] std::string TapAddress();

}  // namespace dormouse::net
