#include "node-agent/net/furnished.h"

#include <optional>

#include "node-agent/host/netns.h"
#include "node-agent/host/nft.h"
#include "node-agent/net/address_plan.h"
#include "src/common/base/files.h"

namespace dormouse::net {

using host::RouteSocket;

std::string TapAddress() {
  return std::string(kGuestGateway) + "/" + std::to_string(kGuestPrefixLength);
}

Result<> TurnOffIpv6(const std::string& link) {
  // Documentation/networking/ip-sysctl.rst
  const std::string file = "/proc/sys/net/ipv6/conf/" + link + "/disable_ipv6";
  if (!PathExists(file)) return {};  // a kernel without it
  return WriteKernelFile(file, "1");
}

Result<FurnishedNet> Furnish(const SandboxRules& rules) {
  std::optional<RouteSocket> inside;
  UniqueFd tap;
  const auto furnish = [&]() -> Result<> {
    // The rules come before the first link to the outside.
    DORMOUSE_TRY(host::ApplyNft(Created(SandboxTable(rules))));
    DORMOUSE_TRY(TurnOffIpv6());
    // Root's, until it is somebody's: a tap without an owner is anybody's.
    DORMOUSE_ASSIGN(tap, host::AttachTap({kTapName, 0, kTapMac}));
    DORMOUSE_ASSIGN(inside, RouteSocket::Open());
    DORMOUSE_TRY(inside->AddAddress(kTapName, TapAddress()));
    return WriteKernelFile(kForwarding, "1");
  };
  DORMOUSE_ASSIGN(UniqueFd netns, host::NewNetNs(furnish));
  return FurnishedNet{rules.policy, std::move(netns), *std::move(inside), std::move(tap)};
}

}  // namespace dormouse::net
