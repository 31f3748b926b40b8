// Puts what is known into a status that is about to be sent, and leaves out what is not. A private
// header of this room.
//
// Pure. A field that is left out of a server-side apply is given up, so an empty one never
// overwrites what another writer knows.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "src/common/api/conditions.h"
#include "src/common/base/time.h"

namespace dormouse::api {

inline void PutText(nlohmann::json* object, const char* key, const std::string& text) {
  if (!text.empty()) (*object)[key] = text;
}

inline void PutTime(nlohmann::json* object, const char* key, const std::optional<WallTime>& time) {
  if (time) (*object)[key] = FormatTime(*time);
}

/// As ParseDuration reads it.
[[nodiscard]] inline std::string FormatMilliseconds(std::chrono::milliseconds time) {
  return std::to_string(time.count()) + "ms";
}

/// Zero is "not known".
inline void PutCount(nlohmann::json* object, const char* key, int64_t count) {
  if (count != 0) (*object)[key] = count;
}

inline void PutObject(nlohmann::json* object, const char* key, nlohmann::json value) {
  if (!value.empty()) (*object)[key] = std::move(value);
}

}  // namespace dormouse::api
