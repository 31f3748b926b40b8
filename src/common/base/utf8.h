// The characters of a text that may be anybody's bytes. Pure; thread-safe.
#pragma once

#include <cstddef>
#include <string_view>

namespace dormouse {

/// The length of the UTF-8 character at the start of `text`, which is not empty (RFC 3629: no
/// overlong forms, no surrogates); 0 when there is none.
[[nodiscard]] std::size_t Utf8Length(std::string_view text);

}  // namespace dormouse
