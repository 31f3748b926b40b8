#include "node-agent/net/furnished.h"

#include <sys/random.h>

#include <cstdint>
#include <cstdio>
#include <optional>

#include "node-agent/host/netns.h"
#include "node-agent/host/nft.h"
#include "node-agent/net/address_plan.h"
#include "src/common/base/files.h"

namespace dormouse::net {
namespace {

using host::RouteSocket;

// Random, as the ends of a dead agent may still be on their way out.
Result<std::string> PoolName() {
  uint64_t number = 0;
  if (::getrandom(&number, sizeof(number), 0) != static_cast<ssize_t>(sizeof(number)))
    return FailErrno("getrandom");
  char digits[sizeof("0123456789ab")];
  std::snprintf(digits, sizeof(digits), "%012llx",
                static_cast<unsigned long long>(number & 0xffffffffffffULL));
  return std::string(kPoolPrefix) + digits;
}

}  // namespace

std::string TapAddress() {
  return std::string(kGuestGateway) + "/" + std::to_string(kGuestPrefixLength);
}

Result<> AddInnerRoutes(RouteSocket* inside, const std::string& gateway) {
  DORMOUSE_TRY(inside->ReplaceRoute(kInnerVeth, gateway + "/32", "", ""));
  return inside->ReplaceRoute(kInnerVeth, "0.0.0.0/0", gateway, "");
}

Result<FurnishedNet> Furnish(const SandboxRules& rules) {
  std::optional<RouteSocket> inside;
  UniqueFd tap;
  const auto furnish = [&]() -> Result<> {
    // The rules come before the first link to the outside.
    DORMOUSE_TRY(host::ApplyNft(kCreateTable + SandboxTable(rules)));
    // Root's, until it is somebody's: a tap without an owner is anybody's.
    DORMOUSE_ASSIGN(tap, host::AttachTap({kTapName, 0, kTapMac}));
    DORMOUSE_ASSIGN(inside, RouteSocket::Open());
    DORMOUSE_TRY(inside->AddAddress(kTapName, TapAddress()));
    return WriteKernelFile(kForwarding, "1");
  };
  DORMOUSE_ASSIGN(UniqueFd netns, host::NewNetNs(furnish));
  DORMOUSE_ASSIGN(std::string veth, PoolName());
  DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
  DORMOUSE_TRY(node.CreateVeth({veth, "", kInnerVeth, netns.get()}));
  DORMOUSE_TRY(node.AddAddress(veth, rules.gateway + "/32"));
  DORMOUSE_TRY(inside->SetUp(kInnerVeth));
  DORMOUSE_TRY(AddInnerRoutes(&*inside, rules.gateway));
  return FurnishedNet{rules.policy, std::move(netns), *std::move(inside), std::move(tap),
                      std::move(veth)};
}

Result<> RemoveStaleVeths() {
  DORMOUSE_ASSIGN(RouteSocket node, RouteSocket::Open());
  DORMOUSE_ASSIGN(const auto links, node.ListLinks(kPoolPrefix));
  for (const auto& link : links) DORMOUSE_TRY(node.DeleteLink(link.name));
  return {};
}

}  // namespace dormouse::net
