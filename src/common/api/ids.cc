#include "src/common/api/ids.h"

#include <algorithm>
#include <cctype>

#include "src/common/base/hash.h"

namespace dormouse::api {

Result<SandboxUid> SandboxUid::Parse(std::string_view text) {
  const bool allowed = std::all_of(text.begin(), text.end(), [](char c) {
    return c == '-' || std::isxdigit(static_cast<unsigned char>(c)) != 0;
  });
  if (!allowed || text.size() < 8 || text.size() > 64) {
    return Fail(ErrorCode::kInvalid,
                "metadata.uid: not a UUID: \"" + std::string(text.substr(0, 64)) + "\"");
  }
  return SandboxUid(std::string(text));
}

std::string SandboxUid::short_id() const {
  return ShortId(text_);
}

}  // namespace dormouse::api
