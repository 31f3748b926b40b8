// The node's own side of its sandboxes' network, kept as it must be for as long as the agent runs.
//
// What keeps a sandbox from the node's own addresses does not depend on nftables, as any firewall's
// restart flushes that. Three routing rules and one route do it:
//
//   201  from GATEWAY        to RANGE iif lo  lookup main    what the node says, and its way back
//   202  fwmark 0x20/0x20    to RANGE iif lo  lookup main    what our table lets pass
//   203                      to RANGE iif lo  lookup 10201   all else: "local RANGE dev lo"
//
// 1. A packet from a sandbox arrives for an address of the node.
// 2. Before the kernel delivers it, it looks for the way back to the sender, as from that address
//    (fib_validate_source() in net/ipv4/fib_frontend.c; "iif lo" is true of that lookup and of what
//    the node sends itself, and of nothing that is forwarded).
// 3. That is rule 203: the sender is said to be the node itself, so the packet is a martian, and
//    dropped. This does not depend on rp_filter.
//
// The gateway's address (rule 201) is denied to guests in their own namespaces. DNS to a resolver
// that is the node itself gets a mark by our table (rule 202). So without the table the node's
// addresses stay out of reach, and what is lost is masquerade: the way out.
//
// Thread-safe. Called from threads in the node's network namespace.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "node-agent/host/netlink_raw.h"
#include "node-agent/net/rules.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"

namespace dormouse::net {

/// How the node's side is.
struct NodeNetState {
  std::optional<Error> broken;  ///< why what is missing could not be put back
  std::string repaired;         ///< what was missing the last time that something was; empty: never
  WallTime repaired_at{};
  int repairs = 0;
};

class NodeNet {
 public:
  /// `range` and `gateway`: of host-side addresses.
  NodeNet(std::string range, std::string gateway, std::vector<std::string> resolvers);
  NodeNet(const NodeNet&) = delete;
  NodeNet& operator=(const NodeNet&) = delete;

  /// All of it anew, whatever there is. An agent that starts does this.
  Result<> Prepare();
  /// What is missing, in words, is back when this returns; empty where nothing was. `renew_table`:
  /// somebody has changed our table's rules.
  Result<std::string> Repair(bool renew_table = false);

  struct Listener {
    /// A sandbox's link has lost an address or a route, or is down: by its veth's name.
    std::function<void(const std::string& veth)> link_changed;
    /// Something was missing and is back.
    std::function<void(const std::string& what)> repaired;
  };
  /// From now on what goes missing is put back, at once where the kernel tells of it, else within
  /// two seconds. Both are called on one thread, and must not block.
  Result<> Watch(Listener listener);
  [[nodiscard]] NodeNetState state() const;

 private:
  struct News;
  void Run(const std::stop_token& stop);
  void Tend(News* news);

  const std::string range_, gateway_, table_;
  Listener listener_;
  std::optional<host::NetlinkNews> routes_, tables_;
  UniqueFd stopped_;
  mutable std::mutex mutex_;
  NodeNetState state_;
  std::jthread thread_;  ///< last: stopped first
};

}  // namespace dormouse::net
