#include "node-agent/disk/capacity.h"

#include <algorithm>

namespace dormouse::disk {

DiskPressure PressureOf(const host::FileSystemSpace& space, const CapacityPolicy& policy,
                        DiskPressure before) {
  const uint64_t available = space.available_bytes;
  if (available < policy.pause_bytes) return DiskPressure::kPauseGuests;
  if (before == DiskPressure::kPauseGuests && available < policy.resume_bytes)
    return DiskPressure::kPauseGuests;
  return available < policy.reserve_bytes ? DiskPressure::kRefuseNew : DiskPressure::kNone;
}

uint64_t FairShare(const std::vector<StoreSize>& stores, uint64_t available_bytes) {
  uint64_t all = available_bytes;
  for (const StoreSize& store : stores) all += store.allocated_bytes;
  return stores.empty() ? all : all / stores.size();
}

std::vector<std::string> WhoStandsStill(std::vector<StoreSize> stores, uint64_t available_bytes,
                                        const CapacityPolicy& policy,
                                        const std::vector<std::string>& before) {
  const uint64_t share = FairShare(stores, available_bytes);
  const auto beyond = static_cast<uint64_t>(
      std::count_if(stores.begin(), stores.end(),
                    [share](const StoreSize& store) { return store.allocated_bytes > share; }));
  const uint64_t offenders = std::max<uint64_t>(beyond, 1);
  const auto stops_below = [&](uint64_t nth) {
    if (nth >= offenders) return policy.last_resort_bytes;
    return policy.pause_bytes - nth * ((policy.pause_bytes - policy.last_resort_bytes) / offenders);
  };
  std::sort(stores.begin(), stores.end(), [](const StoreSize& a, const StoreSize& b) {
    return a.allocated_bytes != b.allocated_bytes ? a.allocated_bytes > b.allocated_bytes
                                                  : a.sandbox < b.sandbox;
  });
  std::vector<std::string> still;
  for (const std::string& sandbox : before) {
    if (std::any_of(stores.begin(), stores.end(),
                    [&](const StoreSize& store) { return store.sandbox == sandbox; }))
      still.push_back(sandbox);
  }
  const uint64_t band = policy.resume_bytes - policy.pause_bytes;
  while (!still.empty() && available_bytes >= stops_below(still.size() - 1) + band)
    still.pop_back();
  for (const StoreSize& store : stores) {
    if (available_bytes >= stops_below(still.size())) break;
    if (std::find(still.begin(), still.end(), store.sandbox) == still.end())
      still.push_back(store.sandbox);
  }
  return still;
}

bool Admits(const host::FileSystemSpace& space, const CapacityPolicy& policy,
            uint64_t needed_bytes) {
  return space.available_bytes >= policy.reserve_bytes &&
         space.available_bytes - policy.reserve_bytes >= needed_bytes;
}

}  // namespace dormouse::disk
