// What tells whether something happens in a sandbox, as the node's kernel counts it anyway.
//
// Pure; thread-safe. Source: /proc/<pid>/net/dev (proc_pid_net(5)), cpu.stat of a cgroup
// (Documentation/admin-guide/cgroup-v2.rst).
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace dormouse {

/// Counters of one running sandbox, since its VMM or its link was made.
struct Activity {
  std::chrono::microseconds cpu_time{};  ///< of the VMM, so of the guest as well
  uint64_t packets = 0;                  ///< both ways, between the sandbox and the node
  bool operator==(const Activity&) const = default;
};

/// Packets received and sent by each link of a /proc/<pid>/net/dev; what cannot be read is left
/// out.
[[nodiscard]] std::map<std::string, uint64_t> PacketsByLink(std::string_view net_dev);
/// usage_usec of a cpu.stat; nothing where it has none.
[[nodiscard]] std::optional<std::chrono::microseconds> CpuTimeIn(std::string_view cpu_stat);

}  // namespace dormouse
