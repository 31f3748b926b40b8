#include "src/common/api/field_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/common/api/quantity.h"
#include "src/common/base/json_text.h"
#include "src/common/base/time.h"

namespace dormouse::api {

using nlohmann::json;

FieldReader::FieldReader(const json* object, std::string path, std::optional<Error>* first_error)
    : object_(object), path_(std::move(path)), first_error_(first_error) {}

std::string FieldReader::PathOf(const std::string& key) const {
  return path_.empty() ? key : path_ + "." + key;
}

void FieldReader::Refuse(const std::string& key, const std::string& problem) const {
  if (!*first_error_) *first_error_ = Error(ErrorCode::kInvalid, PathOf(key) + ": " + problem);
}

const json* FieldReader::Find(const char* key) const {
  if (object_ == nullptr) return nullptr;
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

std::string FieldReader::Text(const char* key, std::string fallback) const {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->get<std::string>();
  Refuse(key, "must be a string");
  return fallback;
}

std::string FieldReader::TextOrInteger(const char* key) const {
  const json* value = Find(key);
  return value != nullptr && value->is_number_integer() ? JsonText(*value) : Text(key);
}

bool FieldReader::Flag(const char* key, bool fallback) const {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  Refuse(key, "must be true or false");
  return fallback;
}

std::optional<int64_t> FieldReader::Integer(const char* key, int64_t least, int64_t most) const {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  // A number above the signed range wraps in get<int64_t>, so its sign is looked at first.
  if (value->is_number_integer() &&
      !(value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX})) {
    const auto number = value->get<int64_t>();
    if (number >= least && number <= most) return number;
  }
  Refuse(key,
         "must be a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return std::nullopt;
}

std::optional<int64_t> FieldReader::Bytes(const char* key) const {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  std::optional<int64_t> bytes;
  if (value->is_string()) bytes = ParseBytes(value->get<std::string>());
  if (value->is_number_integer()) bytes = ParseBytes(JsonText(*value));
  if (!bytes) Refuse(key, "must be a quantity such as 512Mi");
  return bytes;
}

std::optional<int64_t> FieldReader::Amount(const char* key, int64_t least, int64_t most,
                                           const char* wanted) const {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const auto amount =
      value->is_string() ? ParseQuantity(value->get<std::string>()) : std::optional<Quantity>();
  const bool too_little =
      amount && (amount->bytes < least || (amount->bytes == least && amount->rounded_up));
  if (amount && !too_little && amount->bytes <= most) return amount->bytes;
  Refuse(key, std::string("must be ") + wanted);
  return std::nullopt;
}

std::optional<WallTime> FieldReader::Time(const char* key) const {
  const json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  const auto time = ParseTime(value->is_string() ? value->get<std::string>() : std::string());
  if (!time) Refuse(key, "must be a time such as 2030-01-02T15:04:05Z");
  return time;
}

std::optional<WallTime> FieldReader::Instant(const char* key) const {
  if (!Has(key)) return std::nullopt;
  const std::string text = Text(key);
  const auto time = ParseTime(text);
  if (time && text >= "1970" && text < "2260" && text.compare(17, 2, "60") != 0 &&
      text.find('z') == std::string::npos)
    return time;
  Refuse(key, "must be an instant from 1970 to 2259, such as 2030-01-02T15:04:05Z");
  return std::nullopt;
}

std::optional<std::chrono::seconds> FieldReader::Duration(const char* key,
                                                          std::chrono::seconds least) const {
  if (!Has(key)) return std::nullopt;
  const std::string text = Text(key);
  struct Unit {
    char letter;
    size_t most_digits;
    int64_t seconds;
  };
  int64_t total = 0;
  size_t at = 0;
  for (const auto& [letter, most_digits, seconds] :
       {Unit{'h', 6, 3600}, Unit{'m', 7, 60}, Unit{'s', 9, 1}}) {
    const size_t end = std::min(text.find_first_not_of("0123456789", at), text.size());
    if (end == at || end - at > most_digits || end == text.size() || text[end] != letter) continue;
    total += std::stoll(text.substr(at, end - at)) * seconds;
    at = end + 1;
  }
  if (!text.empty() && at == text.size() && std::chrono::seconds(total) >= least)
    return std::chrono::seconds(total);
  Refuse(key, "must be a duration" +
                  (least.count() > 0 ? " of at least " + std::to_string(least.count()) + "s" : "") +
                  ", such as 10m or 1h30m");
  return std::nullopt;
}

const json& FieldReader::List(const char* key) const {
  static const json kNone = json::array();
  const json* value = Find(key);
  if (value == nullptr) return kNone;
  if (value->is_array()) return *value;
  Refuse(key, "must be a list");
  return kNone;
}

std::vector<std::string> FieldReader::TextList(const char* key) const {
  std::vector<std::string> texts;
  for (const json& entry : List(key)) {
    if (entry.is_string()) {
      texts.push_back(entry.get<std::string>());
    } else {
      Refuse(std::string(key) + "[" + std::to_string(texts.size()) + "]", "must be a string");
      return texts;
    }
  }
  return texts;
}

std::map<std::string, std::string> FieldReader::TextMap(const char* key) const {
  std::map<std::string, std::string> map;
  const FieldReader object = Object(key);
  if (!object.present()) return map;
  for (const auto& [name, value] : object.object_->items()) {
    if (value.is_string()) {
      map.emplace(name, value.get<std::string>());
    } else {
      object.Refuse(name, "must be a string");
    }
  }
  return map;
}

FieldReader FieldReader::Object(const char* key) const {
  const json* value = Find(key);
  if (value != nullptr && !value->is_object()) {
    Refuse(key, "must be an object");
    value = nullptr;
  }
  return {value, PathOf(key), first_error_};
}

void FieldReader::ForEach(const char* key,
                          const std::function<void(const FieldReader&)>& each) const {
  size_t index = 0;
  for (const json& entry : List(key)) {
    const std::string name = std::string(key) + "[" + std::to_string(index++) + "]";
    if (!entry.is_object()) {
      Refuse(name, "must be an object");
      return;
    }
    each(FieldReader(&entry, PathOf(name), first_error_));
  }
}

}  // namespace dormouse::api
