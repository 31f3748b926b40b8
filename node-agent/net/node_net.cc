#include "node-agent/net/node_net.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

#include "node-agent/host/netlink.h"
#include "node-agent/host/nft.h"
#include "node-agent/net/address_plan.h"
#include "node-agent/net/furnished.h"
#include "src/common/base/files.h"
#include "src/common/base/log.h"

namespace dormouse::net {
namespace {

using host::ValueOf;

constexpr uint32_t kNodesWord = 201;
constexpr uint32_t kMarked = 202;
constexpr uint32_t kTrap = 203;
constexpr uint32_t kTrapTable = 10201;
constexpr auto kLookEvery = std::chrono::seconds(2);

std::string NameOf(int link) {
  char name[IFNAMSIZ] = {};
  return ::if_indextoname(static_cast<unsigned>(link), name) == nullptr ? "" : name;
}

void AddWord(std::string* text, const char* word) {
  *text += (text->empty() ? "" : ", ") + std::string(word);
}

}  // namespace

// What has been told since the last look.
struct NodeNet::News {
  bool look = false;    ///< something of the node's may be missing
  bool rules = false;   ///< rules of our table were changed ...
  bool whole = false;   ///< ... in the transaction that made the table anew
  bool renew = false;   ///< somebody changed rules of our table
  std::set<int> links;  ///< that may have lost something
};

NodeNet::NodeNet(std::string range, std::string gateway, std::vector<std::string> resolvers)
    : range_(std::move(range)),
      gateway_(std::move(gateway)),
      table_(NodeTable({range_, std::move(resolvers)})) {}

Result<> NodeNet::Prepare() {
  return Repair(true).map([](const std::string&) {});
}

Result<std::string> NodeNet::Repair(bool renew_table) {
  std::string missing;
  // The walls first.
  DORMOUSE_ASSIGN(host::RouteSocket node, host::RouteSocket::Open());
  // The gateway is an address of the node before any sandbox's link has it, as the route needs it.
  DORMOUSE_TRY(node.AddAddress("lo", gateway_ + "/32"));
  DORMOUSE_ASSIGN(bool added, node.AddLocalRoute(range_, gateway_, kTrapTable));
  for (const auto& rule : {host::RouteRule{kTrap, "", 0, range_, kTrapTable},
                           host::RouteRule{kNodesWord, gateway_, 0, range_, RT_TABLE_MAIN},
                           host::RouteRule{kMarked, "", kMark, range_, RT_TABLE_MAIN}}) {
    DORMOUSE_ASSIGN(const bool one_more, node.AddRule(rule));
    added |= one_more;
  }
  if (added) AddWord(&missing, "routing rules");
  DORMOUSE_ASSIGN(const auto comment, host::ReadTableComment(kTableName));
  if (renew_table || comment != CommentOf(table_)) {
    DORMOUSE_TRY(host::ApplyNft(table_));
    AddWord(&missing, "table inet dormouse");
  }
  DORMOUSE_ASSIGN(const std::string forwarding, ReadFile(kForwarding, 16));
  if (!forwarding.starts_with('1')) {
    DORMOUSE_TRY(WriteKernelFile(kForwarding, "1"));
    AddWord(&missing, "net.ipv4.ip_forward");
  }
  return missing;
}

Result<> NodeNet::Watch(Listener listener) {
  listener_ = std::move(listener);
  DORMOUSE_ASSIGN(
      routes_,
      host::NetlinkNews::Open(NETLINK_ROUTE, {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE,
                                              RTNLGRP_IPV4_RULE, RTNLGRP_IPV4_NETCONF}));
  DORMOUSE_ASSIGN(tables_, host::NetlinkNews::Open(NETLINK_NETFILTER, {NFNLGRP_NFTABLES}));
  stopped_ = UniqueFd(::eventfd(0, EFD_CLOEXEC));
  if (!stopped_) return FailErrno("eventfd");
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
  return {};
}

void NodeNet::Run(const std::stop_token& stop) {
  const std::stop_callback wake(stop, [this] { (void)::eventfd_write(stopped_.get(), 1); });
  const auto of_table = [](const host::NetlinkMessage& message, News* news) {
    // Each kind of object names its table by its first attribute (NFTA_TABLE_NAME,
    // NFTA_CHAIN_TABLE, NFTA_RULE_TABLE ...). NEWGEN ends a transaction, and names a process.
    const int type = message.header->nlmsg_type & 0xff;
    if (type == NFT_MSG_NEWGEN) {
      if (news->rules && !news->whole) news->renew = true;
      news->rules = news->whole = false;
      return;
    }
    const auto table = message.Attribute(sizeof(nfgenmsg), NFTA_TABLE_NAME);
    const auto family = ValueOf<nfgenmsg>(message.payload());
    if (!table || !family || family->nfgen_family != NFPROTO_INET ||
        *table != std::string_view(kTableName, sizeof(kTableName)))
      return;
    news->look = true;
    if (type == NFT_MSG_NEWTABLE || type == NFT_MSG_DELTABLE) {
      news->whole = true;
    } else {
      news->rules = true;
    }
  };
  const auto of_routes = [](const host::NetlinkMessage& message, News* news) {
    const auto type = message.header->nlmsg_type;
    if (type == RTM_DELRULE || type == RTM_NEWNETCONF) news->look = true;
    if (type == RTM_DELADDR) {
      if (const auto address = ValueOf<ifaddrmsg>(message.payload()))
        news->links.insert(static_cast<int>(address->ifa_index));
    }
    if (type == RTM_DELROUTE) {
      const auto table = message.Attribute(sizeof(rtmsg), RTA_TABLE);
      const auto link = message.Attribute(sizeof(rtmsg), RTA_OIF);
      if (table && ValueOf<uint32_t>(*table) == kTrapTable) news->look = true;
      if (const auto index = link ? ValueOf<int>(*link) : std::nullopt) news->links.insert(*index);
    }
    if (type == RTM_NEWLINK) {
      const auto link = ValueOf<ifinfomsg>(message.payload());
      // A link that is made is down, too: then all is said to have changed.
      if (link && (link->ifi_flags & IFF_UP) == 0 && (link->ifi_change & IFF_UP) != 0 &&
          link->ifi_change != ~0U)
        news->links.insert(link->ifi_index);
    }
  };
  const Clock& clock = Clock::System();
  News news;
  MonotonicTime next_look = clock.Now();
  while (!stop.stop_requested()) {
    if (clock.Now() >= next_look) news.look = true;
    if (news.look) next_look = clock.Now() + kLookEvery;
    Tend(&news);
    pollfd waited[] = {
        {routes_->fd(), POLLIN, 0}, {tables_->fd(), POLLIN, 0}, {stopped_.get(), POLLIN, 0}};
    const auto rest = std::chrono::ceil<std::chrono::milliseconds>(next_look - clock.Now());
    (void)::poll(waited, std::size(waited), std::max(0, static_cast<int>(rest.count())));
    // After news that were lost, everything may have happened.
    if (!routes_->Read([&](const auto& message) { of_routes(message, &news); })) news.look = true;
    if (!tables_->Read([&](const auto& message) { of_table(message, &news); })) {
      news.look = news.renew = true;
      news.rules = news.whole = false;
    }
  }
}

void NodeNet::Tend(News* news) {
  for (const int link : std::exchange(news->links, {})) {
    const std::string name = NameOf(link);
    if (name.starts_with(kVethPrefix)) listener_.link_changed(name);
  }
  // One that failed is tried again at the next look.
  if (!std::exchange(news->look, false)) return;
  const auto repaired = Repair(news->renew);
  if (repaired) news->renew = false;
  {
    const std::lock_guard lock(mutex_);
    state_.broken = repaired ? std::nullopt : std::optional(repaired.error());
    if (repaired && !repaired->empty()) {
      state_.repaired = *repaired;
      state_.repaired_at = Clock::System().WallNow();
      ++state_.repairs;
    }
  }
  if (!repaired) {
    log::Error("the node's network is not as it must be", {{"error", repaired.error().message()}});
  } else if (!repaired->empty()) {
    log::Warning("something of the node's network was missing, and is back", {{"what", *repaired}});
    listener_.repaired(*repaired);
  }
}

NodeNetState NodeNet::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

}  // namespace dormouse::net
