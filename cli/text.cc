#include "cli/text.h"

#include <algorithm>
#include <array>

#include "src/common/base/utf8.h"

namespace dormouse::cli {
namespace {

/// C0, DEL, and C1, whose 0x9B starts an escape sequence as ESC [ does.
bool IsControl(std::string_view character) {
  const auto first = static_cast<unsigned char>(character.front());
  if (character.size() == 1) return first < 0x20 || first == 0x7F;
  return first == 0xC2 && static_cast<unsigned char>(character[1]) < 0xA0;
}

std::string TwoDigits(int64_t number) {
  return (number < 10 ? "0" : "") + std::to_string(number);
}

}  // namespace

std::string Amount(int64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits{" B", " KiB", " MiB", " GiB", " TiB"};
  size_t unit = 0;
  int64_t scale = 1;
  while (unit + 1 < kUnits.size() && bytes / scale >= 1024) {
    scale *= 1024;
    ++unit;
  }
  const int64_t whole = bytes / scale;
  std::string text = std::to_string(whole);
  if (const int64_t tenth = (bytes % scale) * 10 / scale; whole < 10 && tenth > 0) {
    text += "." + std::to_string(tenth);
  }
  return text + kUnits[unit];
}

std::string Elapsed(std::chrono::nanoseconds time) {
  const int64_t tenths = std::max<int64_t>(0, time / std::chrono::milliseconds(100));
  const int64_t seconds = tenths / 10;
  if (seconds < 10) return std::to_string(seconds) + "." + std::to_string(tenths % 10) + "s";
  if (seconds < 60) return std::to_string(seconds) + "s";
  const int64_t minutes = seconds / 60;
  if (minutes < 60) return std::to_string(minutes) + "m" + TwoDigits(seconds % 60) + "s";
  return std::to_string(minutes / 60) + "h" + TwoDigits(minutes % 60) + "m";
}

std::string OneLine(std::string_view text) {
  std::string line;
  line.reserve(text.size());
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 0) {
      line += '?';
      text.remove_prefix(1);
      continue;
    }
    const std::string_view character = text.substr(0, length);
    line += IsControl(character) ? std::string_view(" ") : character;
    text.remove_prefix(length);
  }
  return line;
}

std::string Shortened(std::string_view text, size_t columns) {
  size_t characters = 0;
  size_t cut = 0;  // where the last character that leaves room for the mark ends
  for (size_t at = 0; at < text.size(); ++characters) {
    if (characters + 1 == columns) cut = at;
    if (characters == columns) return columns == 0 ? "" : std::string(text.substr(0, cut)) + "…";
    at += std::max<size_t>(1, Utf8Length(text.substr(at)));
  }
  return std::string(text);
}

}  // namespace dormouse::cli
