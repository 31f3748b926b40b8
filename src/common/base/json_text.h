// The one way to write JSON. A plain nlohmann::json::dump() throws (type_error.316) where a string
// is no UTF-8, and a guest, a VMM or a user can make one such of anything that is told of them.
//
// Pure; thread-safe.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace dormouse {

/// One line, or indented by so many spaces. What is no UTF-8 becomes U+FFFD.
template <typename Json>
[[nodiscard]] std::string JsonText(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace dormouse
