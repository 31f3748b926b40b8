// What admission refuses, once more: for objects that came past it (an older schema, a restored
// etcd). The rules are those of crds/dormouse.dev_sandboxes.yaml; a test feeds both.
//
// A sandbox that breaks one is told so (InvalidSpec), and can be read and deleted like any other:
// that is why these are not rules of ParseSandbox. Pure; thread-safe.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "src/common/api/sandbox.h"
#include "src/common/base/result.h"

namespace dormouse::api {

/// What of a workload's words goes to its guest in one message: at most so much, by WeightOf, for
/// command and args together, and as much again for env. As JSON they take twice that at the most,
/// and a message holds 64 KiB.
inline constexpr size_t kMaxWordsBytes = 24 << 10;

/// Bytes of UTF-8; three times that with a control character that JSON writes in six.
[[nodiscard]] size_t WeightOf(std::string_view text);

/// Letters, digits, '-', '_' and '.', beginning and ending with a letter or a digit: no path can be
/// made of it, and with its suffix it is a file's name (255 bytes at most).
[[nodiscard]] bool IsImageName(std::string_view name);

/// A name that a Sandbox or a SnapshotTemplate may have: lower case letters, digits, '-' and '.'.
[[nodiscard]] bool IsObjectName(std::string_view name);

/// kInvalid, "spec.field: what it must be".
[[nodiscard]] Result<> CheckSpec(const SandboxSpec& spec);

}  // namespace dormouse::api
