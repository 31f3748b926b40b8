#include "guest-agent/init/network.h"

#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

#include "guest-agent/init/files.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::guest {
namespace {

Result<UniqueFd> ConfigSocket() {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return FailErrno("inet socket");
  return fd;
}

ifreq Request(const std::string& interface) {
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

void SetAddress(sockaddr& where, uint32_t address) {
  auto& in = reinterpret_cast<sockaddr_in&>(where);
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = address;
}

Result<void> SetUp(int fd, const std::string& interface) {
  ifreq request = Request(interface);
  if (::ioctl(fd, SIOCGIFFLAGS, &request) != 0) return FailErrno("flags of " + interface);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(fd, SIOCSIFFLAGS, &request) != 0) return FailErrno("set up " + interface);
  return {};
}

/// Nothing beyond the interface speaks IPv6. The kernel would look for a router and a neighbour
/// that are not there, by timers that each clone of this guest inherits.
Result<void> TurnOffIpv6(const std::string& interface) {
  // Documentation/networking/ip-sysctl.rst
  return WriteSetting("/proc/sys/net/ipv6/conf/" + interface + "/disable_ipv6", "1");
}

}  // namespace

Result<void> BringUpLoopback() {
  DORMOUSE_ASSIGN(const UniqueFd fd, ConfigSocket());
  return SetUp(fd.get(), "lo");
}

Result<void> ConfigureNetwork(const NetworkArgs& args) {
  DORMOUSE_ASSIGN(const UniqueFd fd, ConfigSocket());
  ifreq request = Request(args.interface);
  SetAddress(request.ifr_addr, args.address);
  if (::ioctl(fd.get(), SIOCSIFADDR, &request) != 0) {
    return FailErrno("set address of " + args.interface);
  }
  request = Request(args.interface);
  SetAddress(request.ifr_netmask, args.mask);
  if (::ioctl(fd.get(), SIOCSIFNETMASK, &request) != 0) {
    return FailErrno("set mask of " + args.interface);
  }
  DORMOUSE_TRY(TurnOffIpv6(args.interface));
  DORMOUSE_TRY(SetUp(fd.get(), args.interface));
  if (args.gateway == 0) return {};
  rtentry route{};
  SetAddress(route.rt_dst, 0);
  SetAddress(route.rt_genmask, 0);
  SetAddress(route.rt_gateway, args.gateway);
  route.rt_flags = RTF_UP | RTF_GATEWAY;
  if (::ioctl(fd.get(), SIOCADDRT, &route) != 0 && errno != EEXIST) {
    return FailErrno("add default route");
  }
  return {};
}

}  // namespace dormouse::guest
