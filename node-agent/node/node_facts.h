// What this machine is: processors, memory, kernel, the file system of the state directory, KVM.
// Read once when the agent starts; none of it changes while a kernel runs.
//
// Thread-safe; the parsers are pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse {

struct NodeFacts {
  int cpus = 0;              ///< online, of the machine, whatever the agent's own cpuset is
  int64_t memory_bytes = 0;  ///< MemTotal
  std::string cpu_model;
  std::string kernel_version;  ///< uname -r
  std::string file_system;     ///< of the state directory: "xfs", "btrfs", "ext4" ...
  bool reflink = false;        ///< files share blocks there (tried, not guessed)
  bool kvm = false;            ///< /dev/kvm opens and speaks version 12 of its API
};

/// `state_dir` must be there and writable. kUnavailable names what could not be read.
Result<NodeFacts> ReadNodeFacts(const std::string& state_dir);

/// The first "model name" of /proc/cpuinfo (x86), else what comes nearest, else "unknown";
/// printable.
[[nodiscard]] std::string CpuModelOf(std::string_view cpuinfo);
/// MemTotal of /proc/meminfo, in bytes; kInvalid when there is none.
Result<int64_t> MemTotalOf(std::string_view meminfo);
/// The name for statfs(2)'s f_type, or its number in hex.
[[nodiscard]] std::string FileSystemName(uint64_t magic);

}  // namespace dormouse
