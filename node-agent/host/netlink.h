// Links, addresses and routes by rtnetlink (libnl-3 route), and taps by /dev/net/tun.
//
// A RouteSocket belongs to the network namespace that its thread was in when it was opened, and to
// one thread at a time. Names that the caller chooses begin with a prefix of ours, so a leak can be
// listed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

struct nl_sock;

namespace dormouse::host {

struct Link {
  int index = 0;
  std::string name;
  std::string alias;  ///< IFLA_IFALIAS: we keep the full UID there
  std::string kind;   ///< "veth", "tun", "" for a device
  std::string mac;    ///< "02:fc:00:00:00:05"
  bool up = false;
};

struct VethPair {
  std::string name;  ///< in the socket's namespace; at most 15 characters
  std::string peer_name;
  int peer_netns = -1;  ///< the peer is created in there, never seen elsewhere
};

struct TapSpec {
  std::string name;
  uid_t owner = 0;  ///< may attach without any capability
  std::string mac;  ///< of the host's end; empty = the kernel's choice
};

/// A rule for lookups of this namespace's own (`iif lo`): of what its programs send, and for the
/// way back to whoever sent something to itself.
struct RouteRule {
  uint32_t priority = 0;
  std::string from;   ///< empty = any
  uint32_t mark = 0;  ///< these bits; 0 = any
  std::string to;
  uint32_t table = 0;
};

class RouteSocket {
 public:
  /// In the calling thread's network namespace.
  static Result<RouteSocket> Open();
  RouteSocket(RouteSocket&&) noexcept;
  RouteSocket& operator=(RouteSocket&&) noexcept;
  ~RouteSocket();

  /// Both ends down. kAlreadyExists when there is a link of that name, or of the peer's.
  Result<> CreateVeth(const VethPair& pair);
  /// Success when it is not there. The other end of a veth goes with it.
  Result<> DeleteLink(const std::string& name);
  Result<std::optional<Link>> FindLink(const std::string& name);
  /// Links whose name begins with `prefix`, sorted by name.
  Result<std::vector<Link>> ListLinks(std::string_view prefix);
  /// In one message with the alias, where one is given.
  Result<> SetUp(const std::string& name, const std::string& alias = "");
  /// `cidr` as "10.201.0.1/32". Success when the link has it.
  Result<> AddAddress(const std::string& link, const std::string& cidr);
  /// `local` here, `peer` at the other end: while the link is up, the kernel has a route to `peer`
  /// through it, with `local` as its source. Success when the link has it.
  Result<> AddPeerAddress(const std::string& link, const std::string& local,
                          const std::string& peer);
  /// Replaces one to the same destination. `gateway` is on the link itself.
  Result<> ReplaceRoute(const std::string& link, const std::string& destination,
                        const std::string& gateway);
  /// The same to the other end of `link`, from `source`.
  Result<> ReplaceDirectRoute(const std::string& link, const std::string& destination,
                              const std::string& source);
  /// False when it was there.
  Result<bool> AddRule(const RouteRule& rule);
  /// In `table`, `destination` is this node itself, known as `source`. False when it was there.
  Result<bool> AddLocalRoute(const std::string& destination, const std::string& source,
                             uint32_t table);
  /// The number of the link through which something from `source` goes to `destination`; nothing
  /// when it goes nowhere, as when `source` is no address of this namespace. Of the calling
  /// thread's namespace.
  static Result<std::optional<int>> LinkTowards(const std::string& source,
                                                const std::string& destination);

 private:
  struct Impl;
  explicit RouteSocket(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// A persistent single-queue tap with virtio-net headers in the calling thread's namespace; left
/// down. Success when it is there with the same owner.
Result<> CreateTap(const TapSpec& spec);
/// The same, still attached: nobody else can use the tap until the descriptor is closed. kBusy when
/// somebody does.
Result<UniqueFd> AttachTap(const TapSpec& spec);
/// From any thread; `tap` is of AttachTap.
Result<> SetTapOwner(int tap, uid_t owner);

}  // namespace dormouse::host
