#include "node-agent/disk/capacity.h"

namespace dormouse::disk {

DiskPressure PressureOf(const host::FileSystemSpace& space, const CapacityPolicy& policy,
                        DiskPressure before) {
  const uint64_t available = space.available_bytes;
  if (available < policy.pause_bytes) return DiskPressure::kPauseGuests;
  if (before == DiskPressure::kPauseGuests && available < policy.resume_bytes)
    return DiskPressure::kPauseGuests;
  return available < policy.reserve_bytes ? DiskPressure::kRefuseNew : DiskPressure::kNone;
}

bool Admits(const host::FileSystemSpace& space, const CapacityPolicy& policy,
            uint64_t needed_bytes) {
  return space.available_bytes >= policy.reserve_bytes &&
         space.available_bytes - policy.reserve_bytes >= needed_bytes;
}

}  // namespace dormouse::disk
