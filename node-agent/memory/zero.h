// Is it all zeros? Pure; thread-safe.
#pragma once

#include <cstdint>
#include <cstring>

namespace dormouse::memory {

/// `size` is at least 8. Stops at the first byte that is not zero; memcmp does the rest with the
/// machine's vectors.
[[nodiscard]] inline bool IsZero(const char* data, size_t size) {
  uint64_t first;
  std::memcpy(&first, data, sizeof(first));
  return first == 0 && std::memcmp(data, data + sizeof(first), size - sizeof(first)) == 0;
}

}  // namespace dormouse::memory
