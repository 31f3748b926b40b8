#include "node-agent/host/netlink.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/veth.h>
#include <netlink/route/route.h>
#include <netlink/route/rule.h>

#include <algorithm>

#include "node-agent/host/netlink_raw.h"

namespace dormouse::host {
namespace {

// The kernel says that a list changed while it was read (NLM_F_DUMP_INTR).
constexpr int kMostInterruptedDumps = 5;

template <typename T, void (*Free)(T*)>
struct Freer {
  void operator()(T* object) const { Free(object); }
};
using Socket = std::unique_ptr<nl_sock, Freer<nl_sock, nl_socket_free>>;
using LinkObject = std::unique_ptr<rtnl_link, Freer<rtnl_link, rtnl_link_put>>;
using VethObject = std::unique_ptr<rtnl_link, Freer<rtnl_link, rtnl_link_veth_release>>;
using AddressObject = std::unique_ptr<rtnl_addr, Freer<rtnl_addr, rtnl_addr_put>>;
using RouteObject = std::unique_ptr<rtnl_route, Freer<rtnl_route, rtnl_route_put>>;
using RuleObject = std::unique_ptr<rtnl_rule, Freer<rtnl_rule, rtnl_rule_put>>;
using Address = std::unique_ptr<nl_addr, Freer<nl_addr, nl_addr_put>>;
using Cache = std::unique_ptr<nl_cache, Freer<nl_cache, nl_cache_free>>;

// An interface number for our end of a veth that its other end, in a fresh namespace, cannot have
// too. Where both have the same number the kernel takes the carrier's news as not urgent
// (linkwatch_urgent_event() in net/core/link_watch.c) and drops what is sent for up to a second
// after the link is up.
int VethIndex(const std::string& name) {
  uint32_t hash = 2166136261U;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619U;
  return static_cast<int>((1U << 24) | (hash & 0xffffffU));
}

bool IsMissing(int error) {
  return error == -NLE_OBJ_NOTFOUND || error == -NLE_NODEV;
}

tl::unexpected<Error> FailNl(const std::string& what, int error) {
  ErrorCode code = ErrorCode::kInternal;
  if (IsMissing(error)) code = ErrorCode::kNotFound;
  if (error == -NLE_EXIST) code = ErrorCode::kAlreadyExists;
  if (error == -NLE_BUSY) code = ErrorCode::kBusy;
  if (error == -NLE_PERM) code = ErrorCode::kPermission;
  if (error == -NLE_INVAL || error == -NLE_RANGE) code = ErrorCode::kInvalid;
  return Fail(code, what + ": " + nl_geterror(error));
}

std::string TextOf(const char* text) {
  return text == nullptr ? std::string() : std::string(text);
}

std::string TextOf(nl_addr* address) {
  if (address == nullptr || nl_addr_get_len(address) == 0) return "";
  char text[64] = {};
  nl_addr2str(address, text, sizeof(text));
  return text;
}

Link LinkFrom(rtnl_link* object) {
  Link link;
  link.index = rtnl_link_get_ifindex(object);
  link.name = TextOf(rtnl_link_get_name(object));
  link.alias = TextOf(rtnl_link_get_ifalias(object));
  link.kind = TextOf(rtnl_link_get_type(object));
  link.mac = TextOf(rtnl_link_get_addr(object));
  link.up = (rtnl_link_get_flags(object) & IFF_UP) != 0;
  return link;
}

Result<Address> ParseAddress(const std::string& text) {
  nl_addr* parsed = nullptr;
  if (const int error = nl_addr_parse(text.c_str(), AF_UNSPEC, &parsed); error < 0) {
    return FailNl("address '" + text + "'", error);
  }
  return Address(parsed);
}

// `gateway` or `source` may be null.
RouteObject RouteOver(rtnl_link* link, nl_addr* destination, nl_addr* gateway, nl_addr* source) {
  RouteObject route(rtnl_route_alloc());
  rtnl_route_set_dst(route.get(), destination);
  if (source != nullptr) rtnl_route_set_pref_src(route.get(), source);
  rtnl_nexthop* hop = rtnl_route_nh_alloc();
  rtnl_route_nh_set_ifindex(hop, rtnl_link_get_ifindex(link));
  if (gateway != nullptr) rtnl_route_nh_set_gateway(hop, gateway);
  rtnl_route_add_nexthop(route.get(), hop);  // owns it from here
  return route;
}

}  // namespace

struct RouteSocket::Impl {
  Socket socket;

  // Null when there is no such link.
  Result<LinkObject> Get(const std::string& name) const {
    rtnl_link* found = nullptr;
    const int error = rtnl_link_get_kernel(socket.get(), 0, name.c_str(), &found);
    if (IsMissing(error)) return LinkObject();
    if (error < 0) return FailNl("find link " + name, error);
    return LinkObject(found);
  }

  Result<LinkObject> MustGet(const std::string& name) const {
    DORMOUSE_ASSIGN(LinkObject link, Get(name));
    if (!link) return Fail(ErrorCode::kNotFound, "link " + name + " is not there");
    return link;
  }

  // `peer` empty = none.
  Result<> AddAddress(const std::string& link_name, const std::string& cidr,
                      const std::string& peer) const {
    DORMOUSE_ASSIGN(const LinkObject link, MustGet(link_name));
    DORMOUSE_ASSIGN(const Address local, ParseAddress(cidr));
    const AddressObject address(rtnl_addr_alloc());
    rtnl_addr_set_ifindex(address.get(), rtnl_link_get_ifindex(link.get()));
    if (const int error = rtnl_addr_set_local(address.get(), local.get()); error < 0)
      return FailNl("address " + cidr, error);
    if (!peer.empty()) {
      DORMOUSE_ASSIGN(const Address other_end, ParseAddress(peer));
      if (const int error = rtnl_addr_set_peer(address.get(), other_end.get()); error < 0)
        return FailNl("address " + peer, error);
    }
    const int error = rtnl_addr_add(socket.get(), address.get(), NLM_F_CREATE | NLM_F_EXCL);
    if (error < 0 && error != -NLE_EXIST)
      return FailNl("add address " + cidr + " to " + link_name, error);
    return {};
  }

  Result<> ReplaceRoute(const std::string& link_name, const std::string& destination,
                        nl_addr* gateway, nl_addr* source) const {
    DORMOUSE_ASSIGN(const LinkObject link, MustGet(link_name));
    DORMOUSE_ASSIGN(const Address to, ParseAddress(destination));
    const RouteObject route = RouteOver(link.get(), to.get(), gateway, source);
    const int error = rtnl_route_add(socket.get(), route.get(), NLM_F_CREATE | NLM_F_REPLACE);
    if (error < 0) return FailNl("route " + destination + " through " + link_name, error);
    return {};
  }

  Result<> Change(rtnl_link* link, rtnl_link* change, const std::string& what) const {
    if (const int error = rtnl_link_change(socket.get(), link, change, 0); error < 0)
      return FailNl(what, error);
    return {};
  }
};

RouteSocket::RouteSocket(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RouteSocket::RouteSocket(RouteSocket&&) noexcept = default;
RouteSocket& RouteSocket::operator=(RouteSocket&&) noexcept = default;
RouteSocket::~RouteSocket() = default;

Result<RouteSocket> RouteSocket::Open() {
  auto impl = std::make_unique<Impl>();
  impl->socket.reset(nl_socket_alloc());
  if (!impl->socket) return Fail(ErrorCode::kNoSpace, "netlink socket: no memory");
  if (const int error = nl_connect(impl->socket.get(), NETLINK_ROUTE); error < 0) {
    return FailNl("netlink socket", error);
  }
  return RouteSocket(std::move(impl));
}

Result<> RouteSocket::CreateVeth(const VethPair& pair) {
  const std::string what = "create veth " + pair.name;
  if (pair.name.size() >= IFNAMSIZ)
    return Fail(ErrorCode::kInvalid, what + ": the name is too long");
  const VethObject link(rtnl_link_veth_alloc());
  if (!link) return Fail(ErrorCode::kNoSpace, what + ": no memory");
  rtnl_link_set_name(link.get(), pair.name.c_str());
  const LinkObject peer(rtnl_link_veth_get_peer(link.get()));
  rtnl_link_set_name(peer.get(), pair.peer_name.c_str());
  if (pair.peer_netns >= 0) rtnl_link_set_ns_fd(peer.get(), pair.peer_netns);
  rtnl_link_set_ifindex(link.get(), VethIndex(pair.name));
  int error = rtnl_link_add(impl_->socket.get(), link.get(), NLM_F_CREATE | NLM_F_EXCL);
  if (error == -NLE_EXIST || error == -NLE_BUSY) {  // the number is taken: any other will do
    rtnl_link_set_ifindex(link.get(), 0);
    error = rtnl_link_add(impl_->socket.get(), link.get(), NLM_F_CREATE | NLM_F_EXCL);
  }
  if (error < 0) return FailNl(what, error);
  return {};
}

Result<> RouteSocket::DeleteLink(const std::string& name) {
  DORMOUSE_ASSIGN(const LinkObject link, impl_->Get(name));
  if (!link) return {};
  const int error = rtnl_link_delete(impl_->socket.get(), link.get());
  if (error < 0 && !IsMissing(error)) return FailNl("delete link " + name, error);
  return {};
}

Result<std::optional<Link>> RouteSocket::FindLink(const std::string& name) {
  DORMOUSE_ASSIGN(const LinkObject link, impl_->Get(name));
  if (!link) return std::nullopt;
  return LinkFrom(link.get());
}

Result<std::vector<Link>> RouteSocket::ListLinks(std::string_view prefix) {
  for (int attempt = 1;; ++attempt) {
    nl_cache* filled = nullptr;
    const int error = rtnl_link_alloc_cache(impl_->socket.get(), AF_UNSPEC, &filled);
    if (error == -NLE_DUMP_INTR && attempt < kMostInterruptedDumps) continue;
    if (error < 0) return FailNl("list links", error);
    const Cache cache(filled);
    std::vector<Link> links;
    for (nl_object* object = nl_cache_get_first(cache.get()); object != nullptr;
         object = nl_cache_get_next(object)) {
      Link link = LinkFrom(reinterpret_cast<rtnl_link*>(object));
      if (link.name.starts_with(prefix)) links.push_back(std::move(link));
    }
    std::sort(links.begin(), links.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return links;
  }
}

Result<> RouteSocket::SetUp(const std::string& name, const std::string& alias) {
  DORMOUSE_ASSIGN(const LinkObject link, impl_->MustGet(name));
  const LinkObject change(rtnl_link_alloc());
  if (!alias.empty()) rtnl_link_set_ifalias(change.get(), alias.c_str());
  rtnl_link_set_flags(change.get(), IFF_UP);
  return impl_->Change(link.get(), change.get(), "set " + name + " up");
}

Result<> RouteSocket::AddAddress(const std::string& link, const std::string& cidr) {
  return impl_->AddAddress(link, cidr, "");
}

Result<> RouteSocket::AddPeerAddress(const std::string& link, const std::string& local,
                                     const std::string& peer) {
  return impl_->AddAddress(link, local, peer);
}

Result<> RouteSocket::ReplaceRoute(const std::string& link_name, const std::string& destination,
                                   const std::string& gateway) {
  DORMOUSE_ASSIGN(const Address via, ParseAddress(gateway));
  return impl_->ReplaceRoute(link_name, destination, via.get(), nullptr);
}

Result<> RouteSocket::ReplaceDirectRoute(const std::string& link_name,
                                         const std::string& destination,
                                         const std::string& source) {
  DORMOUSE_ASSIGN(const Address from, ParseAddress(source));
  return impl_->ReplaceRoute(link_name, destination, nullptr, from.get());
}

Result<bool> RouteSocket::AddRule(const RouteRule& rule) {
  const RuleObject object(rtnl_rule_alloc());
  rtnl_rule_set_family(object.get(), AF_INET);
  rtnl_rule_set_action(object.get(), FR_ACT_TO_TBL);
  rtnl_rule_set_iif(object.get(), "lo");
  rtnl_rule_set_prio(object.get(), rule.priority);
  rtnl_rule_set_table(object.get(), rule.table);
  if (rule.mark != 0) {
    rtnl_rule_set_mark(object.get(), rule.mark);
    rtnl_rule_set_mask(object.get(), rule.mark);
  }
  DORMOUSE_ASSIGN(const Address to, ParseAddress(rule.to));
  rtnl_rule_set_dst(object.get(), to.get());
  if (!rule.from.empty()) {
    DORMOUSE_ASSIGN(const Address from, ParseAddress(rule.from));
    rtnl_rule_set_src(object.get(), from.get());
  }
  const int error = rtnl_rule_add(impl_->socket.get(), object.get(), NLM_F_CREATE | NLM_F_EXCL);
  if (error < 0 && error != -NLE_EXIST) return FailNl("add a routing rule", error);
  return error == 0;
}

Result<bool> RouteSocket::AddLocalRoute(const std::string& destination, const std::string& source,
                                        uint32_t table) {
  DORMOUSE_ASSIGN(const LinkObject link, impl_->MustGet("lo"));
  DORMOUSE_ASSIGN(const Address to, ParseAddress(destination));
  DORMOUSE_ASSIGN(const Address from, ParseAddress(source));
  const RouteObject route = RouteOver(link.get(), to.get(), nullptr, from.get());
  rtnl_route_set_type(route.get(), RTN_LOCAL);
  rtnl_route_set_table(route.get(), table);
  const int error = rtnl_route_add(impl_->socket.get(), route.get(), NLM_F_CREATE | NLM_F_EXCL);
  if (error < 0 && error != -NLE_EXIST) return FailNl("add local route " + destination, error);
  return error == 0;
}

Result<std::optional<int>> RouteSocket::LinkTowards(const std::string& source,
                                                    const std::string& destination) {
  in_addr from{}, to{};
  if (::inet_pton(AF_INET, source.c_str(), &from) != 1 ||
      ::inet_pton(AF_INET, destination.c_str(), &to) != 1)
    return Fail(ErrorCode::kInvalid, "no address: " + source + " or " + destination);
  rtmsg question{};
  question.rtm_family = AF_INET;
  question.rtm_src_len = question.rtm_dst_len = 32;
  const auto answer = NetlinkQuestion(RTM_GETROUTE, BytesOf(question))
                          .Add(RTA_DST, BytesOf(to))
                          .Add(RTA_SRC, BytesOf(from))
                          .Ask(NETLINK_ROUTE);
  // An address that is not ours is an invalid source.
  if (!answer && (answer.error().code() == ErrorCode::kNotFound ||
                  answer.error().code() == ErrorCode::kInvalid))
    return std::nullopt;
  if (!answer) return Fail(answer.error());
  const NetlinkMessage route{reinterpret_cast<const nlmsghdr*>(answer->data())};
  const auto link = route.Attribute(sizeof(rtmsg), RTA_OIF);
  return link ? ValueOf<int>(*link) : std::nullopt;
}

}  // namespace dormouse::host
