#include "src/common/base/time.h"

#include <charconv>
#include <cstdio>
#include <ctime>

namespace dormouse {
namespace {

using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

std::tm UtcOf(WallTime time) {
  const std::time_t whole = std::chrono::system_clock::to_time_t(std::chrono::floor<seconds>(time));
  std::tm parts{};
  ::gmtime_r(&whole, &parts);
  return parts;
}

// Takes exactly `digits` digits off the front of `text`.
bool TakeNumber(std::string_view* text, size_t digits, int* number) {
  if (text->size() < digits) return false;
  const auto [end, code] = std::from_chars(text->data(), text->data() + digits, *number);
  if (code != std::errc() || end != text->data() + digits || text->front() == '-') return false;
  text->remove_prefix(digits);
  return true;
}

bool TakeChar(std::string_view* text, char wanted) {
  if (text->empty() || text->front() != wanted) return false;
  text->remove_prefix(1);
  return true;
}

std::optional<nanoseconds> TakeFraction(std::string_view* text) {
  if (!TakeChar(text, '.')) return nanoseconds(0);
  int64_t value = 0;
  int64_t scale = 100'000'000;
  bool any = false;
  while (!text->empty() && text->front() >= '0' && text->front() <= '9') {
    value += (text->front() - '0') * scale;
    scale /= 10;
    any = true;
    text->remove_prefix(1);
  }
  if (!any) return std::nullopt;
  return nanoseconds(value);
}

std::optional<seconds> TakeOffset(std::string_view* text) {
  if (TakeChar(text, 'Z') || TakeChar(text, 'z')) return seconds(0);
  const bool negative = !text->empty() && text->front() == '-';
  int hours = 0;
  int minutes = 0;
  if (!(TakeChar(text, '+') || TakeChar(text, '-')) || !TakeNumber(text, 2, &hours) ||
      !TakeChar(text, ':') || !TakeNumber(text, 2, &minutes) || hours > 23 || minutes > 59) {
    return std::nullopt;
  }
  const seconds offset = std::chrono::hours(hours) + std::chrono::minutes(minutes);
  return negative ? -offset : offset;
}

std::optional<double> UnitOf(std::string_view unit) {
  if (unit == "ns") return 1;
  if (unit == "us" || unit == "\u00b5s") return 1e3;
  if (unit == "ms") return 1e6;
  if (unit == "s") return 1e9;
  if (unit == "m") return 60e9;
  if (unit == "h") return 3600e9;
  return std::nullopt;
}

}  // namespace

std::string FormatTime(WallTime time) {
  const std::tm parts = UtcOf(time);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string FormatMicroTime(WallTime time) {
  const std::tm parts = UtcOf(time);
  const auto micros = duration_cast<microseconds>(time - std::chrono::floor<seconds>(time)).count();
  char whole[32];
  std::strftime(whole, sizeof whole, "%Y-%m-%dT%H:%M:%S", &parts);
  char text[64];
  std::snprintf(text, sizeof text, "%s.%06ldZ", whole, static_cast<long>(micros));
  return text;
}

// What nanoseconds in 64 bits can tell, with room for an offset.
constexpr std::chrono::year kFirstYear{1680}, kLastYear{2260};

std::optional<WallTime> ParseTime(std::string_view text) {
  int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
  if (!TakeNumber(&text, 4, &year) || !TakeChar(&text, '-') || !TakeNumber(&text, 2, &month) ||
      !TakeChar(&text, '-') || !TakeNumber(&text, 2, &day) || !TakeChar(&text, 'T') ||
      !TakeNumber(&text, 2, &hour) || !TakeChar(&text, ':') || !TakeNumber(&text, 2, &minute) ||
      !TakeChar(&text, ':') || !TakeNumber(&text, 2, &second)) {
    return std::nullopt;
  }
  const auto fraction = TakeFraction(&text);
  const auto offset = TakeOffset(&text);
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (date.year() < kFirstYear || date.year() > kLastYear) return std::nullopt;
  if (!fraction || !offset || !text.empty() || !date.ok() || hour > 23 || minute > 59 ||
      second > 60) {
    return std::nullopt;
  }
  const WallTime time = WallTime(std::chrono::sys_days(date)) + std::chrono::hours(hour) +
                        std::chrono::minutes(minute) + seconds(second) - *offset +
                        duration_cast<WallTime::duration>(*fraction);
  // An offset or a leap second may have led out of the years whose forms are read again.
  const std::chrono::year_month_day utc{std::chrono::floor<std::chrono::days>(time)};
  if (utc.year() < kFirstYear || utc.year() > kLastYear) return std::nullopt;
  return time;
}

std::optional<std::chrono::nanoseconds> ParseDuration(std::string_view text) {
  if (text == "0") return nanoseconds(0);
  if (text.empty()) return std::nullopt;
  double total = 0;
  while (!text.empty()) {
    double value = 0;
    const auto [end, code] =
        std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
    if (code != std::errc() || value < 0) return std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    size_t length = 0;
    while (length < text.size() && text[length] != '.' &&
           (text[length] < '0' || text[length] > '9'))
      ++length;
    const auto unit = UnitOf(text.substr(0, length));
    if (!unit) return std::nullopt;
    text.remove_prefix(length);
    total += value * *unit;
    if (total > 9e18) return std::nullopt;
  }
  return nanoseconds(static_cast<int64_t>(total));
}

}  // namespace dormouse
