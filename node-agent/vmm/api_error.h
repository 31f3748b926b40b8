// What Cloud Hypervisor answers when it refuses, as an Error. Pure; thread-safe.
//
// Bodies come in three forms (vmm/src/api/http/mod.rs and micro_http, v53.0): a JSON array of
// strings, outermost first; a text that looks like an object but holds a raw newline, so is not
// JSON; nothing. Statuses say little (500 is "everything else"), so the code comes from the
// innermost cause too.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse::vmm {

/// The causes, outermost first. A body that is no array of strings is one cause: its text, cut to
/// 1 KiB, control characters as spaces. Empty for an empty body.
[[nodiscard]] std::vector<std::string> ParseErrorChain(std::string_view body);

/// "<call>: HTTP 500: <outermost that says something> ... <innermost>", with the code:
/// 400 kInvalid, 404 kNotFound (no VM, or no such endpoint), 429 kBusy, 503 kUnavailable;
/// 500 by the innermost cause: a held lock or a taken address kBusy, EEXIST kAlreadyExists, ENOSPC
/// and ENOMEM kNoSpace, EACCES and EPERM kPermission; else kInternal.
[[nodiscard]] Error ErrorFromResponse(std::string_view call, int status, std::string_view body);

}  // namespace dormouse::vmm
