// What the kernel's command line says to PID 1. Pure; thread-safe.
//
// ip= as in Documentation/admin-guide/nfs/nfsroot.rst, for one static address:
// <guest>:<unused>:<gateway>:<mask>:<hostname>:<interface>:off
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse::guest {

/// IPv4 addresses in network byte order.
struct NetworkArgs {
  uint32_t address = 0;
  uint32_t gateway = 0;  ///< 0: none
  uint32_t mask = 0;
  std::string hostname;   ///< may be empty
  std::string interface;  ///< "eth0" if not said
};

struct KernelArgs {
  std::string root = "/dev/vda";
  std::string root_fstype;  ///< empty: by the disk's magic
  std::string root_flags;
  bool read_only = false;
  std::optional<NetworkArgs> network;
  std::optional<int> panic;  ///< seconds; negative: at once
};

/// Unknown words are the kernel's or somebody else's; ours that make no sense are kInvalid by name.
[[nodiscard]] Result<KernelArgs> ParseKernelArgs(std::string_view cmdline);
[[nodiscard]] Result<NetworkArgs> ParseIpArg(std::string_view value);

}  // namespace dormouse::guest
