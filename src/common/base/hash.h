// SHA-256 digests, as 64 lower-case hex digits. Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse {

[[nodiscard]] std::string Sha256(std::string_view data);
/// Whether `text` is such a digest, by its form.
[[nodiscard]] bool IsSha256(std::string_view text);
/// Of a file's content, read in blocks of 1 MiB.
Result<std::string> Sha256OfFile(const std::string& path);

/// The first 12 hex digits of the digest of `uid`: the name of a sandbox where the kernel's names
/// are short (an interface has 15 characters). 48 bits: 2,000 sandboxes of a node collide with p <
/// 1e-8, and what carries the name also carries the full UID.
[[nodiscard]] std::string ShortId(std::string_view uid);

}  // namespace dormouse
