// Identities as types. A sandbox is its UID: whatever stands in the kernel or on disk for it is
// named after that, never after the object's name (docs/structure.md, invariant 3).
#pragma once

#include <compare>
#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse::api {

/// metadata.uid: a UUID. What parses is safe in a path and in a kernel name.
class SandboxUid {
 public:
  SandboxUid() = default;
  /// kInvalid for anything but hex digits and dashes, 8 to 64 of them.
  static Result<SandboxUid> Parse(std::string_view text);
  [[nodiscard]] const std::string& text() const { return text_; }
  /// 12 hex digits, where the kernel's names are short.
  [[nodiscard]] std::string short_id() const;
  auto operator<=>(const SandboxUid&) const = default;

 private:
  explicit SandboxUid(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

}  // namespace dormouse::api
