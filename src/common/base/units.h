// Sizes in bytes, as the field names them.
#pragma once

#include <cstdint>

namespace dormouse {

inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;

}  // namespace dormouse
