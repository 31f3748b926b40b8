// The machine that Cloud Hypervisor is asked for: the part of its VmConfig (vmm/src/vm_config.rs,
// v53.0) that Dormouse uses, typed, and its JSON.
//
// Pure values; thread-safe. Memory is always private (no `shared`, hugepages, balloon): a suspend
// reads diverged pages from outside, and that is sound for private memory only. Every device has an
// id of ours; ids that start with "_" are the VMM's own.
#pragma once

#include <cstdint>
#include <string>

#include "src/common/base/result.h"
#include "src/common/base/units.h"

namespace dormouse::vmm {

struct PayloadConfig {
  std::string
      kernel;  ///< bzImage or an ELF with a PVH note; read at boot and at every guest reboot
  std::string initramfs;  ///< opened again by a restore
  std::string cmdline;    ///< empty = DefaultCmdline()
};

struct DiskConfig {
  std::string path;  ///< a block device; always attached Raw, and sparse:false as dm-snapshot takes
                     ///< no DISCARD
  std::string id = "disk0";
  bool readonly = false;
};

struct NetConfig {
  std::string tap = "tap0";               ///< by name, in the network namespace the VMM runs in
  std::string mac = "02:FC:00:00:00:05";  ///< the guest's; the same in every namespace
  std::string id = "net0";
};

struct VsockConfig {
  std::string socket;  ///< the VMM makes it; must not exist
  uint32_t cid = 3;    ///< the same for all: hybrid vsock needs no CID of its own on the host
  std::string id = "vsock0";
};

struct VmConfig {
  uint32_t vcpus = 1;
  uint64_t memory_bytes = 512 * kMiB;
  PayloadConfig payload;
  DiskConfig disk;
  NetConfig net;
  VsockConfig vsock;
  std::string serial_socket;  ///< the VMM listens there; must not exist (ApiClient::Create)
};

/// root on /dev/vda, console on ttyS0, panic = reboot (which we see as an event), the kvm clock,
/// and guest 169.254.0.21/30 behind gateway .22 on eth0.
/// Without the watchdog over the TSC, which is not the clock here: it would wake an idle guest
/// twice a second, and complain after each sleep.
[[nodiscard]] std::string DefaultCmdline();

/// kInvalid naming the first field that is missing or out of range ("payload.kernel is missing"),
/// before anything is made.
Result<> Validate(const VmConfig& config);

/// The body of vm.create: compact JSON, keys sorted. Fails as Validate does.
Result<std::string> ToJson(const VmConfig& config);

}  // namespace dormouse::vmm
