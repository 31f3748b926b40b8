// Structured log lines: a short message for people, fields for programs. One line per event, to
// stderr, as text on a terminal and as JSON otherwise.
//
// Thread-safe; cheap when the level is off. Messages are constant text: what varies goes into
// fields, so that lines can be grouped. Guest memory and secrets are never logged.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

namespace dormouse::log {

enum class Level { kDebug, kInfo, kWarning, kError };

struct Field {
  Field(std::string_view field_key, std::string field_value)
      : key(field_key), value(std::move(field_value)) {}
  Field(std::string_view field_key, std::string_view field_value)
      : key(field_key), value(field_value) {}
  Field(std::string_view field_key, const char* field_value) : key(field_key), value(field_value) {}
  template <typename Int>
  requires std::is_arithmetic_v<Int> Field(std::string_view field_key, Int field_value)
      : key(field_key), value(std::to_string(field_value)) {}
  std::string_view key;
  std::string value;
};

/// Sets the lowest level that is written and the form. Called once, at the start of main.
void Configure(Level lowest, bool json);
/// "debug", "info", "warning", "error"; false for anything else.
[[nodiscard]] bool ParseLevel(std::string_view text, Level* level);

void Write(Level level, std::string_view message, std::initializer_list<Field> fields = {});
inline void Debug(std::string_view message, std::initializer_list<Field> fields = {}) {
  Write(Level::kDebug, message, fields);
}
inline void Info(std::string_view message, std::initializer_list<Field> fields = {}) {
  Write(Level::kInfo, message, fields);
}
inline void Warning(std::string_view message, std::initializer_list<Field> fields = {}) {
  Write(Level::kWarning, message, fields);
}
inline void Error(std::string_view message, std::initializer_list<Field> fields = {}) {
  Write(Level::kError, message, fields);
}

}  // namespace dormouse::log
