// Amounts and times for people, and text of others that is safe on a terminal. Pure; thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace dormouse::cli {

/// "512 B", "2.1 MiB", "96 MiB".
[[nodiscard]] std::string Amount(int64_t bytes);
/// "0.4s", "12s", "1m05s", "1h02m".
[[nodiscard]] std::string Elapsed(std::chrono::nanoseconds time);
/// One line of `text`: control characters, escape sequences and line ends become spaces, and what
/// is no UTF-8 becomes '?'. What a condition says may have come from a guest.
[[nodiscard]] std::string OneLine(std::string_view text);
/// At most `columns` characters, the last one "…" where some were left out. A character counts as
/// one column.
[[nodiscard]] std::string Shortened(std::string_view text, std::size_t columns);

}  // namespace dormouse::cli
