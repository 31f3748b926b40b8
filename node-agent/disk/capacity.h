// When a node is short of disk: what may still start, and who must stand still before a store meets
// ENOSPC (invariant 12).
//
// Pure: the numbers come from SpaceOf() and the stores' fill levels. Thread-safe.
#pragma once

#include <cstdint>

#include "node-agent/host/sparse_files.h"

namespace dormouse::disk {

struct CapacityPolicy {
  uint64_t reserve_bytes = 2ull << 30;  ///< below it nothing new starts
  uint64_t pause_bytes = 512ull << 20;  ///< below it guests that write are paused
  uint64_t resume_bytes = 1ull << 30;   ///< above it they go on: hysteresis
};

enum class DiskPressure {
  kNone,
  kRefuseNew,    ///< NoCapacity for creations and wakes
  kPauseGuests,  ///< NodeDiskFull
};

/// Whether the node is under pressure now, given what it was before. Pure.
[[nodiscard]] DiskPressure PressureOf(const host::FileSystemSpace& space,
                                      const CapacityPolicy& policy, DiskPressure before);

/// Whether a sandbox that will take `needed_bytes` soon (its first allocation window, its memory
/// file) may start: they fit above the reserve. Pure.
[[nodiscard]] bool Admits(const host::FileSystemSpace& space, const CapacityPolicy& policy,
                          uint64_t needed_bytes);

}  // namespace dormouse::disk
