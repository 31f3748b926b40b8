// A sandbox's root disk: one dm-snapshot of a shared read-only origin over the sandbox's own store.
//
// Each Ensure* is one step of preparing, idempotent, named as a failpoint ("disk.base-loop" ...)
// that is hit before and after it ("disk.base-loop.done"), so that a kill between any two can be
// shown to heal. Prepare runs them in order; Release lets go in the order of docs/structure.md,
// invariant 6. Thread-safe for different sandboxes; one owner per sandbox.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "node-agent/disk/base_device.h"
#include "node-agent/disk/store.h"
#include "node-agent/host/dm.h"
#include "node-agent/host/loop.h"
#include "src/common/base/result.h"

namespace dormouse::disk {

struct RootDiskSpec {
  std::string short_id;
  std::string subject;  ///< "namespace/name", for failpoints and messages
  Base base;
  uint64_t disk_bytes = 0;  ///< virtual size; >= the base's; a multiple of 512
  std::string store_file;
  uint64_t allocation_window = kAllocationWindow;
};

struct RootDiskUsage {
  uint64_t used_bytes = 0;       ///< chunks that differ, metadata included
  uint64_t capacity_bytes = 0;   ///< the virtual disk's size
  uint64_t allocated_bytes = 0;  ///< on the node's file system
  uint32_t used_percent = 0;     ///< of capacity
  bool valid = true;
};

class RootDisks {
 public:
  RootDisks(host::DeviceMapper& dm, host::LoopDevices& loops, BaseDevices& bases);

  Result<> EnsureBaseLoop(const RootDiskSpec& spec);
  Result<> EnsureOrigin(const RootDiskSpec& spec);
  Result<> EnsureStoreFile(const RootDiskSpec& spec);
  Result<> EnsureStoreLoop(const RootDiskSpec& spec);
  Result<> EnsureSnapshot(const RootDiskSpec& spec);
  /// All of them. Returns the snapshot's device. kCorrupt when the store is invalid: the disk is
  /// lost.
  Result<host::DeviceNumber> Prepare(const RootDiskSpec& spec);

  /// The kernel holds nothing of it afterwards, nor of a base that nobody uses; the store is kept.
  /// By names alone, so it works for a sandbox whose record is lost. kBusy while the device is
  /// open: the VMM's exit comes first.
  Result<> Release(const std::string& short_id);

  /// All of the node's that were suspended and not resumed. One that cannot be is told in the log,
  /// and holds up no other.
  Result<> ResumeAll();

  Result<RootDiskUsage> Usage(const RootDiskSpec& spec);
  /// Reads the fill level and allocates the store ahead of it. kNoSpace: pause the guest
  /// (capacity.h).
  Result<RootDiskUsage> KeepAhead(const RootDiskSpec& spec);

 private:
  host::DeviceMapper& dm_;
  host::LoopDevices& loops_;
  BaseDevices& bases_;
};

[[nodiscard]] std::string StoreLoopTag(const std::string& short_id);

}  // namespace dormouse::disk
