#include "src/common/api/quantity.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

namespace dormouse::api {
namespace {

constexpr int64_t kLargest = int64_t{1} << 62;
constexpr size_t kLongest = 64;  // characters; the schema allows 32
constexpr int kLargestExponent = 99;

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
  if (exponent.decimal < -kLargestExponent || exponent.decimal > kLargestExponent)
    return std::nullopt;
  return exponent;
}

/// Of a number in decimal digits.
void Double(std::string* digits) {
  int carry = 0;
  for (auto digit = digits->rbegin(); digit != digits->rend(); ++digit) {
    const int twice = 2 * (*digit - '0') + carry;
    *digit = static_cast<char>('0' + twice % 10);
    carry = twice / 10;
  }
  if (carry > 0) digits->insert(digits->begin(), '1');
}

}  // namespace

std::optional<Quantity> ParseQuantity(std::string_view text) {
  if (text.size() > kLongest) return std::nullopt;
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  const size_t end = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto suffix = ParseSuffix(text.substr(end));
  const std::string_view number = text.substr(0, end);
  const size_t point = std::min(number.find('.'), number.size());
  // The value is digits / 10^fraction, in decimal, so that no number of digits is too many.
  std::string digits(number.substr(0, point));
  if (point < number.size()) digits += number.substr(point + 1);
  if (!suffix || digits.empty() || digits.find('.') != std::string::npos) return std::nullopt;
  const int decimals = point < number.size() ? static_cast<int>(number.size() - point - 1) : 0;
  for (int bit = 0; bit < suffix->binary; ++bit) Double(&digits);
  const int shift = suffix->decimal - decimals;
  std::string rest;
  if (shift >= 0) {
    digits.append(static_cast<size_t>(shift), '0');
  } else {
    const size_t below = static_cast<size_t>(-shift);
    const size_t whole = digits.size() - std::min(below, digits.size());
    rest = digits.substr(whole);
    digits.resize(whole);
  }
  digits.erase(0, digits.find_first_not_of('0'));
  int64_t bytes = 0;
  const char* last = digits.data() + digits.size();
  if (!digits.empty() && std::from_chars(digits.data(), last, bytes).ec != std::errc())
    return std::nullopt;
  const bool rounded_up = rest.find_first_not_of('0') != std::string::npos;
  if (bytes > kLargest - (rounded_up ? 1 : 0)) return std::nullopt;
  return Quantity{bytes + (rounded_up ? 1 : 0), rounded_up};
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
