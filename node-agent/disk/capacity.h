// When a node is short of disk: what may still start, and who must stand still before a store meets
// ENOSPC (invariant 12).
//
// Pure: the numbers come from SpaceOf() and the stores' fill levels. Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "node-agent/host/sparse_files.h"

namespace dormouse::disk {

struct CapacityPolicy {
  uint64_t reserve_bytes = 2ull << 30;        ///< below it nothing new starts
  uint64_t pause_bytes = 512ull << 20;        ///< below it the guest that grew most is paused
  uint64_t resume_bytes = 1ull << 30;         ///< above it all go on: hysteresis
  uint64_t last_resort_bytes = 128ull << 20;  ///< below it all guests are paused
};

enum class DiskPressure {
  kNone,
  kRefuseNew,    ///< NoCapacity for creations and wakes
  kPauseGuests,  ///< NodeDiskFull
};

/// Whether the node is under pressure now, given what it was before. Pure.
[[nodiscard]] DiskPressure PressureOf(const host::FileSystemSpace& space,
                                      const CapacityPolicy& policy, DiskPressure before);

/// What the disk of a sandbox that runs takes on the node.
struct StoreSize {
  std::string sandbox;
  uint64_t allocated_bytes = 0;
};

/// An even part of what the stores take and of what is left.
[[nodiscard]] uint64_t FairShare(const std::vector<StoreSize>& stores, uint64_t available_bytes);

/// Which sandboxes stand still, in the order in which they were stopped; `before` is the last
/// answer. The fullest is stopped first. As the space goes on falling towards the last resort,
/// those beyond their fair share follow one by one, and there everybody. As it rises those that
/// were stopped last go on first.
[[nodiscard]] std::vector<std::string> WhoStandsStill(std::vector<StoreSize> stores,
                                                      uint64_t available_bytes,
                                                      const CapacityPolicy& policy,
                                                      const std::vector<std::string>& before);

/// Whether a sandbox that will take `needed_bytes` soon (its first allocation window, its memory
/// file) may start: they fit above the reserve. Pure.
[[nodiscard]] bool Admits(const host::FileSystemSpace& space, const CapacityPolicy& policy,
                          uint64_t needed_bytes);

}  // namespace dormouse::disk
