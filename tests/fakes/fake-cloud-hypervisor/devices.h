// What a VM holds of the host: the files, taps and sockets that the real VMM opens for it, opened
// the same way and in the same order, so that a missing file or permission shows. Closed with the
// object.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "src/common/base/unique_fd.h"
#include "tests/fakes/fake-cloud-hypervisor/answer.h"

namespace dormouse::fake_vmm {

struct Disk {
  std::string path;
  bool readonly = false;
  UniqueFd fd;
};

class Devices {
 public:
  /// Takes each kind out of `config` before it is opened and puts it back afterwards: a kind that
  /// fails is lost from the config, and a second boot goes on without it (device_manager.rs,
  /// v53.0).
  static Outcome<Devices> Open(nlohmann::json& config);
  Devices(Devices&&) = default;
  Devices& operator=(Devices&&) = default;
  /// Removes the vsock socket.
  ~Devices();

  /// Exclusive OFD locks, shared ones for read-only disks, over the bytes of each.
  [[nodiscard]] Outcome<> LockDisks() const;

  [[nodiscard]] const std::vector<Disk>& disks() const { return disks_; }
  [[nodiscard]] UniqueFd TakeVsock() { return std::move(vsock_); }

 private:
  Devices() = default;

  std::vector<Disk> disks_;
  std::vector<UniqueFd> taps_;
  UniqueFd vsock_;
  std::string vsock_path_;
};

}  // namespace dormouse::fake_vmm
