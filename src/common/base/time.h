// Times and durations as the Kubernetes API writes them. Pure; thread-safe.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "src/common/base/clock.h"

namespace dormouse {

/// "2026-11-21T08:30:00Z" (metav1.Time, RFC 3339, whole seconds, UTC).
[[nodiscard]] std::string FormatTime(WallTime time);
/// "2026-11-21T08:30:00.123456Z" (metav1.MicroTime, of Leases and Events).
[[nodiscard]] std::string FormatMicroTime(WallTime time);
/// Either of them, with any offset; nothing when the text is not a time.
[[nodiscard]] std::optional<WallTime> ParseTime(std::string_view text);

/// A Go duration ("1h30m", "10m", "500ms", "0s"), not negative; nothing when the text is not one.
[[nodiscard]] std::optional<std::chrono::nanoseconds> ParseDuration(std::string_view text);

}  // namespace dormouse
