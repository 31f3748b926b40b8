// All that we hold in the kernel, listed by the names that are ours: what the sweep and the leak
// check compare with the sandboxes that exist.
//
// Thread-safe; reads only.
#pragma once

#include <string>
#include <vector>

#include "node-agent/host/cgroup.h"
#include "node-agent/host/dm.h"
#include "node-agent/host/loop.h"
#include "node-agent/host/mounts.h"
#include "src/common/base/result.h"

namespace dormouse::host {

struct InventoryItem {
  std::string kind;  ///< "dm", "loop", "netns", "veth", "mount", "cgroup", "process"
  std::string name;  ///< of the kernel object
  std::string
      short_id;        ///< of the sandbox it belongs to; "" = shared (a base, the pool), or unknown
  std::string detail;  ///< for people: alias, backing inode, pids
};

struct InventorySources {
  DeviceMapper* dm = nullptr;  ///< null = not looked at
  LoopDevices* loops = nullptr;
  const HostNamespaces* host = nullptr;
  const Cgroups* cgroups = nullptr;
  std::string netns_directory;  ///< "/run/dormouse/netns"
  std::string vm_directories;   ///< "/run/dormouse/vm"
};

/// Sorted by kind and name. Links are those of the calling thread's network namespace, which must
/// be the node's.
Result<std::vector<InventoryItem>> ListAll(const InventorySources& sources);

/// "dormouse-<short id>-root" or "-store", "dmv<short id>" -> the short id; "" for anything else.
/// Pure.
[[nodiscard]] std::string ShortIdIn(const std::string& name);

}  // namespace dormouse::host
