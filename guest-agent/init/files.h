// Small files, read and written in one go. Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse::guest {

/// At most 1 MiB, also of files without a size (/proc).
[[nodiscard]] Result<std::string> ReadSmallFile(const std::string& path);
/// Creates (0644) or truncates.
[[nodiscard]] Result<void> WriteSmallFile(const std::string& path, std::string_view text);
/// A setting below /proc or /sys; success where the kernel has none of that name.
[[nodiscard]] Result<void> WriteSetting(const std::string& path, std::string_view value);

/// With all that lead to it (0755). Success where it is there.
[[nodiscard]] Result<void> MakeDirectories(const std::string& path);

}  // namespace dormouse::guest
