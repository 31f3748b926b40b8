// A block or character device as the kernel knows it: major:minor. Names in /dev are somebody
// else's.
//
// Plain values; thread-safe.
#pragma once

#include <sys/sysmacros.h>
#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <string>

namespace dormouse::host {

struct DeviceNumber {
  uint32_t major = 0;
  uint32_t minor = 0;

  static DeviceNumber FromDev(dev_t device) { return {::major(device), ::minor(device)}; }
  [[nodiscard]] dev_t ToDev() const { return ::makedev(major, minor); }
  /// "253:3", as dm tables and sysfs write it.
  [[nodiscard]] std::string ToString() const {
    return std::to_string(major) + ":" + std::to_string(minor);
  }
  auto operator<=>(const DeviceNumber&) const = default;
};

inline constexpr uint64_t kSectorBytes = 512;

}  // namespace dormouse::host
