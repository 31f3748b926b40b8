#include "src/common/api/quantity.h"

#include <array>
#include <charconv>

namespace dormouse::api {
namespace {

constexpr int64_t kLargest = int64_t{1} << 62;

struct Suffix {
  std::string_view text;
  int binary = 0;   ///< power of 2
  int decimal = 0;  ///< power of 10
};

constexpr std::array<Suffix, 15> kSuffixes = {{{"Ki", 10, 0},
                                               {"Mi", 20, 0},
                                               {"Gi", 30, 0},
                                               {"Ti", 40, 0},
                                               {"Pi", 50, 0},
                                               {"Ei", 60, 0},
                                               {"n", 0, -9},
                                               {"u", 0, -6},
                                               {"m", 0, -3},
                                               {"", 0, 0},
                                               {"k", 0, 3},
                                               {"M", 0, 6},
                                               {"G", 0, 9},
                                               {"T", 0, 12},
                                               {"P", 0, 15}}};

std::optional<Suffix> ParseSuffix(std::string_view text) {
  for (const Suffix& known : kSuffixes) {
    if (known.text == text) return known;
  }
  if (text.empty() || (text[0] != 'e' && text[0] != 'E')) return std::nullopt;
  if (text == "E") return Suffix{"E", 0, 18};
  std::string_view digits = text.substr(1);
  if (!digits.empty() && digits[0] == '+') digits.remove_prefix(1);
  Suffix exponent;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), exponent.decimal);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  if (exponent.decimal < -18 || exponent.decimal > 18) return std::nullopt;
  return exponent;
}

}  // namespace

std::optional<Quantity> ParseQuantity(std::string_view text) {
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  // The value is mantissa · 10^-fraction; 18 digits keep every product below in 128 bits.
  __int128 mantissa = 0;
  int digits = 0, fraction = 0;
  bool point = false;
  size_t at = 0;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '.' && !point) {
      point = true;
    } else if (c >= '0' && c <= '9') {
      if (++digits > 19) return std::nullopt;
      mantissa = mantissa * 10 + (c - '0');
      if (point) ++fraction;
    } else {
      break;
    }
  }
  const auto suffix = ParseSuffix(text.substr(at));
  if (digits == 0 || !suffix) return std::nullopt;
  int power = suffix->decimal - fraction;
  for (int bit = 0; bit < suffix->binary; ++bit) {
    mantissa *= 2;
    if (mantissa > (__int128{1} << 120)) return std::nullopt;
  }
  for (; power > 0; --power) {
    mantissa *= 10;
    if (mantissa > (__int128{1} << 120)) return std::nullopt;
  }
  bool rest = false;
  for (; power < 0 && mantissa > 0; ++power) {
    rest = rest || mantissa % 10 != 0;
    mantissa /= 10;
  }
  if (rest) ++mantissa;
  if (mantissa > kLargest) return std::nullopt;
  return Quantity{static_cast<int64_t>(mantissa), rest};
}

std::optional<int64_t> ParseBytes(std::string_view text) {
  const auto quantity = ParseQuantity(text);
  return quantity ? std::optional(quantity->bytes) : std::nullopt;
}

std::string FormatBytes(int64_t bytes) {
  constexpr std::array<std::string_view, 7> kUnits = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return std::to_string(bytes) + std::string(kUnits[unit]);
}

}  // namespace dormouse::api
