#include "tests/fakes/fake-cloud-hypervisor/devices.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tests/fakes/fake-cloud-hypervisor/config.h"
#include "tests/fakes/fake-cloud-hypervisor/serial_port.h"

namespace dormouse::fake_vmm {
namespace {

using nlohmann::json;

json Take(json& config, const char* key) {
  json taken;
  if (const auto found = config.find(key); found != config.end()) {
    taken = std::move(*found);
    config.erase(found);
  }
  return taken;
}

Outcome<Disk> OpenDisk(const json& config) {
  Disk disk;
  disk.path = config.value("path", "");
  disk.readonly = config.value("readonly", false);
  const int mode = disk.readonly ? O_RDONLY : O_RDWR;
  disk.fd.Reset(::open(disk.path.c_str(), mode | O_CLOEXEC));
  if (!disk.fd) {
    return Refuse({"Error from device manager", "Cannot open disk path",
                   "I/O error (path=" + disk.path + " op=open)", OsCause(errno)});
  }
  return disk;
}

Outcome<UniqueFd> OpenTap(const std::string& name) {
  const Causes outer = {"Error from device manager", "Cannot create virtio-net device",
                        "Failed to open taps", "Open tap device failed"};
  const auto fail = [&](Causes causes) {
    Causes all = outer;
    all.insert(all.end(), causes.begin(), causes.end());
    return Refuse(std::move(all));
  };
  if (name.size() >= IFNAMSIZ) return fail({"Interface name too long (max length is 15): " + name});
  UniqueFd tap(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!tap) return fail({"Couldn't open /dev/net/tun", OsCause(errno)});
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0)
    return fail({"Unable to configure tap interface", OsCause(errno)});
  int header = 12;
  if (::ioctl(tap.get(), TUNSETVNETHDRSZ, &header) != 0)
    return fail({"Setting vnet header size failed", OsCause(errno)});
  // Up already (made so by who may): then no capability is asked for, as in the real one.
  const UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (::ioctl(control.get(), SIOCGIFFLAGS, &request) != 0)
    return fail({"Enabling tap interface failed", OsCause(errno)});
  if ((request.ifr_flags & IFF_UP) == 0) {
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    if (::ioctl(control.get(), SIOCSIFFLAGS, &request) != 0)
      return fail({"Enabling tap interface failed", OsCause(errno)});
  }
  return tap;
}

}  // namespace

Devices::~Devices() {
  if (!vsock_path_.empty()) ::unlink(vsock_path_.c_str());
}

Outcome<Devices> Devices::Open(json& config) {
  Devices devices;
  if (json disks = Take(config, "disks"); disks.is_array()) {
    for (const json& disk : disks) {
      auto opened = OpenDisk(disk);
      if (!opened) return tl::unexpected<Refusal>(opened.error());
      devices.disks_.push_back(std::move(*opened));
    }
    config["disks"] = std::move(disks);
  }
  if (json nets = Take(config, "net"); nets.is_array()) {
    for (const json& net : nets) {
      auto tap = OpenTap(net.value("tap", ""));
      if (!tap) return tl::unexpected<Refusal>(tap.error());
      devices.taps_.push_back(std::move(*tap));
    }
    config["net"] = std::move(nets);
  }
  if (json vsock = Take(config, "vsock"); vsock.is_object()) {
    const std::string path = vsock.value("socket", "");
    int errnum = 0;
    devices.vsock_ = ListenAt(path, 128, &errnum);
    if (!devices.vsock_) {
      return Refuse({"Error from device manager", "Cannot create virtio-vsock backend",
                     "Error binding to the host-side Unix socket", OsCause(errnum)});
    }
    devices.vsock_path_ = path;
    config["vsock"] = std::move(vsock);
  }
  return devices;
}

Outcome<> Devices::LockDisks() const {
  for (const Disk& disk : disks_) {
    struct flock lock {};
    lock.l_type = disk.readonly ? F_RDLCK : F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_len = ::lseek(disk.fd.get(), 0, SEEK_END);
    if (::fcntl(disk.fd.get(), F_OFD_SETLK, &lock) == 0) continue;
    const bool held = errno == EAGAIN || errno == EACCES;
    Causes causes = {"Error locking disk images: Another instance likely holds a lock",
                     "Cannot lock images of all block devices",
                     std::string("Failed to get ") + (disk.readonly ? "Read" : "Write") +
                         " lock for disk image: " + disk.path};
    causes.push_back(held ? "The file is already locked"
                          : "The lock state could not be checked or set");
    return Refuse(std::move(causes));
  }
  return {};
}

}  // namespace dormouse::fake_vmm
