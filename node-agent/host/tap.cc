// Taps by /dev/net/tun (Documentation/networking/tuntap.rst).
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstdio>

#include "node-agent/host/netlink.h"
#include "node-agent/host/sparse_files.h"

namespace dormouse::host {
namespace {

constexpr char kTunDevice[] = "/dev/net/tun";

ifreq RequestFor(const std::string& name) {
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

Result<> SetMac(int tun, const TapSpec& spec) {
  ifreq request{};
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  auto* bytes = reinterpret_cast<unsigned char*>(request.ifr_hwaddr.sa_data);
  if (std::sscanf(spec.mac.c_str(), "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &bytes[0], &bytes[1],
                  &bytes[2], &bytes[3], &bytes[4], &bytes[5]) != 6) {
    return Fail(ErrorCode::kInvalid, "tap " + spec.name + ": '" + spec.mac + "' is no MAC address");
  }
  if (::ioctl(tun, SIOCSIFHWADDR, &request) != 0) return FailErrno("tap " + spec.name + ": MAC");
  return {};
}

}  // namespace

Result<UniqueFd> AttachTap(const TapSpec& spec) {
  const std::string what = "create tap " + spec.name;
  if (spec.name.empty() || spec.name.size() >= IFNAMSIZ)
    return Fail(ErrorCode::kInvalid, what + ": bad name");
  DORMOUSE_ASSIGN(UniqueFd tun, OpenFile(kTunDevice, O_RDWR));
  ifreq request = RequestFor(spec.name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(tun.get(), TUNSETIFF, &request) != 0) {
    if (errno == EBUSY) return Fail(ErrorCode::kBusy, what + ": somebody is attached");
    return FailErrno(what);
  }
  if (!spec.mac.empty()) DORMOUSE_TRY(SetMac(tun.get(), spec));
  DORMOUSE_TRY(SetTapOwner(tun.get(), spec.owner));
  // Last: until here it goes with this descriptor, so a half-made one is never left.
  if (::ioctl(tun.get(), TUNSETPERSIST, 1UL) != 0) return FailErrno(what + ": persist");
  return tun;
}

Result<> SetTapOwner(int tap, uid_t owner) {
  if (::ioctl(tap, TUNSETOWNER, static_cast<unsigned long>(owner)) != 0)
    return FailErrno("owner of a tap");
  return {};
}

Result<> CreateTap(const TapSpec& spec) {
  auto attached = AttachTap(spec);
  if (attached) return {};
  // A single-queue tap has one user: its VMM is attached, so it is there and was made whole.
  if (attached.error().code() == ErrorCode::kBusy) return {};
  return Fail(attached.error());
}

}  // namespace dormouse::host
