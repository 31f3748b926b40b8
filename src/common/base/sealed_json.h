// A JSON value in a file, with its version and its checksum: {"version", "oldestWriter",
// "checksum",
// "<name>": value}, where the checksum is the SHA-256 of the value's canonical text. It tells what
// a power cut, a bad disk or a careless hand left from what was written; it is no defence against
// somebody who writes on purpose.
//
// Pure; thread-safe.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse {

struct Seal {
  const char* name;  ///< the value's key, and what messages call it: "record"
  int version;       ///< that we write, and the newest that we know
  /// Older programs would lose what they do not know: they must not write what we have written.
  int oldest_writer = 1;
};

/// One line. What is no UTF-8 is replaced: a value may quote a guest.
[[nodiscard]] std::string SealJson(const Seal& seal, const nlohmann::json& value);
/// Gives `read` the value of what SealJson wrote, in which every number is an integer. Also of a
/// newer version, where we may write it: then it may hold fields that we do not know. kUnsupported
/// where we may not. kCorrupt for all else, and for whatever `read` throws: "record does not match
/// its checksum", "record is malformed: ...".
Result<> OpenSealedJson(const Seal& seal, std::string_view text,
                        const std::function<void(const nlohmann::json& value)>& read);

}  // namespace dormouse
