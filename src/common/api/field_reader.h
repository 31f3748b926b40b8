// Reads the fields of a JSON object under the names that a user knows them by. A private header of
// this room.
//
// A reader stands on one object ("spec.resources") and remembers, for its whole tree, the first
// field that was not what it must be; the caller asks error() once, at the end. Absent fields and
// null give the fallback. Not thread-safe; the JSON and the first reader must outlive all that were
// made from it.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/common/base/clock.h"
#include "src/common/base/result.h"

namespace dormouse::api {

class FieldReader {
 public:
  /// Stands on `object`, which is null where there is none.
  FieldReader(const nlohmann::json* object, std::string path, std::optional<Error>* first_error);

  [[nodiscard]] bool present() const { return object_ != nullptr; }
  [[nodiscard]] bool Has(const char* key) const { return Find(key) != nullptr; }

  [[nodiscard]] std::string Text(const char* key, std::string fallback = {}) const;
  /// Of a field that is IntOrString: a number as its decimal digits; empty where it is absent.
  [[nodiscard]] std::string TextOrInteger(const char* key) const;
  [[nodiscard]] bool Flag(const char* key, bool fallback) const;
  [[nodiscard]] std::optional<int64_t> Integer(const char* key, int64_t least, int64_t most) const;
  /// A quantity, as text or as a number of bytes.
  [[nodiscard]] std::optional<int64_t> Bytes(const char* key) const;
  /// A quantity as text, of at least `least` and at most `most` bytes, rounded up; else it must be
  /// `wanted`.
  [[nodiscard]] std::optional<int64_t> Amount(const char* key, int64_t least, int64_t most,
                                              const char* wanted) const;
  [[nodiscard]] std::optional<WallTime> Time(const char* key) const;
  /// A time as a person may write it: of the years 1970 to 2259, without a leap second.
  [[nodiscard]] std::optional<WallTime> Instant(const char* key) const;
  /// A duration of hours, minutes and seconds, in this order, at least `least`.
  [[nodiscard]] std::optional<std::chrono::seconds> Duration(const char* key,
                                                             std::chrono::seconds least) const;
  [[nodiscard]] std::vector<std::string> TextList(const char* key) const;
  [[nodiscard]] std::map<std::string, std::string> TextMap(const char* key) const;
  [[nodiscard]] const nlohmann::json& List(const char* key) const;

  /// A word of `words`, each with its meaning; absent = the first one's.
  template <typename E>
  [[nodiscard]] E OneOf(const char* key,
                        std::initializer_list<std::pair<const char*, E>> words) const {
    const std::string text = Text(key, words.begin()->first);
    std::string allowed;
    for (const auto& [word, meaning] : words) {
      if (text == word) return meaning;
      allowed += allowed.empty() ? word : std::string(", ") + word;
    }
    Refuse(key, "must be one of " + allowed + ", not \"" + text + "\"");
    return words.begin()->second;
  }

  [[nodiscard]] FieldReader Object(const char* key) const;
  /// Calls `each` with a reader on each object of the list `key`.
  void ForEach(const char* key, const std::function<void(const FieldReader&)>& each) const;

  /// Records "<path>.<key>: <problem>" unless a problem was recorded before.
  void Refuse(const std::string& key, const std::string& problem) const;

 private:
  [[nodiscard]] const nlohmann::json* Find(const char* key) const;
  [[nodiscard]] std::string PathOf(const std::string& key) const;

  const nlohmann::json* object_;
  std::string path_;
  std::optional<Error>* first_error_;
};

}  // namespace dormouse::api
