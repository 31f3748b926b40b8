// What the API is told of this node. A pure function: facts, sandboxes and space in, status out.
// The publisher compares it with what was last written and stays silent when nothing changed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "node-agent/host/sparse_files.h"
#include "node-agent/net/node_net.h"
#include "node-agent/node/node_facts.h"
#include "node-agent/sandbox/view.h"
#include "node-agent/vmm/version.h"
#include "src/common/api/sandbox_node.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"

namespace dormouse {

/// What of the machine sandboxes may have.
struct NodeAllowance {
  int64_t reserve_memory_bytes = 512LL << 20;  ///< for the system, and for pods where there are any
  int reserve_cpus = 0;
  int cpu_overcommit = 8;    ///< vCPUs for each processor that is not reserved: most sandboxes idle
  int disk_overcommit = 10;  ///< bytes of disk for each byte of room: most disks stay nearly empty
  uint64_t reserve_disk_bytes = 2ULL << 30;  ///< disk::CapacityPolicy::reserve_bytes
  int max_running = 500;
  int max_sleeping = 5000;
};

enum class NodeDisk {
  kFine,
  kRefuseNew,    ///< below the reserve: nothing new starts
  kPauseGuests,  ///< guests stand still until there is room
};

struct NodeObservation {
  std::vector<SandboxSummary> sandboxes;
  std::vector<api::NodeImage> images;
  std::vector<std::string> templates;
  Result<vmm::VmmVersion> hypervisor = vmm::VmmVersion{};  ///< or why none can be used
  host::FileSystemSpace space;                             ///< of the state directory
  NodeDisk disk = NodeDisk::kFine;
  std::vector<std::string> stand_still;  ///< for want of disk; the one that grew most first
  net::NodeNetState network{};
};

/// `before` gives the transition times of the conditions that stay as they are. Disk amounts are
/// rounded (1 % of the file system, 64 MiB at least, before the overcommit), so that a guest that
/// writes does not make us write.
[[nodiscard]] api::SandboxNodeStatus ComputeNodeStatus(const NodeFacts& facts,
                                                       const NodeAllowance& allowance,
                                                       const std::string& endpoint,
                                                       const NodeObservation& seen,
                                                       const api::Conditions& before, WallTime now);

/// True when only amounts of disk differ: worth a write, but not at once.
[[nodiscard]] bool DifferOnlyInDisk(const api::SandboxNodeStatus& a,
                                    const api::SandboxNodeStatus& b);

}  // namespace dormouse
