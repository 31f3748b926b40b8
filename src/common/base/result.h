// Result<T>: a value or an Error. What every fallible function inside Dormouse returns.
//
// An Error says what failed, with which name, and what the system answered
// ("create snapshot dormouse-3f2a-root: table load: ENOSPC"), and carries a code that callers and
// the work queue act upon: nobody parses the text. Values are plain: no threading rules, no
// ownership.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace dormouse {

/// What a caller can do about a failure. The work queue maps it: kInvalid, kCorrupt and
/// kUnsupported are tried again slowly (kube/controller_loop.h), all others with back-off.
enum class ErrorCode {
  kUnavailable,    ///< did not answer, or not now: try again with back-off
  kDeadline,       ///< took longer than it may
  kConflict,       ///< somebody else changed it first: read again
  kNotFound,       ///< is not there
  kAlreadyExists,  ///< is there, and is not what was asked for
  kBusy,           ///< something still holds it
  kNoSpace,        ///< no room: disk, memory, addresses
  kInvalid,        ///< the request itself is wrong
  kPermission,     ///< refused
  kCorrupt,        ///< data that fails its checks: quarantined, never used
  kUnsupported,    ///< this node, kernel or VMM cannot do it
  kCancelled,      ///< we are stopping
  kInternal,       ///< anything else the system answered
};

/// "kNoSpace" -> "NoSpace", for logs and metrics.
[[nodiscard]] std::string_view ErrorCodeName(ErrorCode code);

class [[nodiscard]] Error {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  /// `what` and the text of `errnum`, with the code that fits it (ENOENT -> kNotFound, EBUSY ->
  /// kBusy ...).
  static Error FromErrno(std::string_view what, int errnum);

  [[nodiscard]] ErrorCode code() const { return code_; }
  [[nodiscard]] const std::string& message() const { return message_; }
  /// The errno behind it, or 0.
  [[nodiscard]] int errnum() const { return errnum_; }
  /// How long the other side asked us to wait (HTTP Retry-After), if it did.
  [[nodiscard]] std::optional<std::chrono::seconds> retry_after() const { return retry_after_; }

  /// The same error, told by a caller who knows more: "<context>: <message>".
  [[nodiscard]] Error Wrap(std::string_view context) const;
  [[nodiscard]] Error WithRetryAfter(std::chrono::seconds after) const;
  [[nodiscard]] Error WithCode(ErrorCode code) const;

  /// False where a quick retry fails again: only a change of the request, or of what it acts on,
  /// can help.
  [[nodiscard]] bool IsRetryable() const;

 private:
  ErrorCode code_;
  int errnum_ = 0;
  std::optional<std::chrono::seconds> retry_after_;
  std::string message_;
};

template <typename T = void>
using Result = tl::expected<T, Error>;

/// Fail(kInvalid, "...") in a return statement of any Result.
inline tl::unexpected<Error> Fail(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error(code, std::move(message)));
}
inline tl::unexpected<Error> Fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}
/// Fails with errno as it is now.
tl::unexpected<Error> FailErrno(std::string_view what);
tl::unexpected<Error> FailErrno(std::string_view what, int errnum);

}  // namespace dormouse

/// Returns from the function when `expr`, a Result, failed.
#define DORMOUSE_TRY(expr)                                                          \
  do {                                                                              \
    if (auto dormouse_try_ = (expr); !dormouse_try_) {                              \
      return ::tl::unexpected<::dormouse::Error>(std::move(dormouse_try_).error()); \
    }                                                                               \
  } while (false)

#define DORMOUSE_CONCAT_INNER(a, b) a##b
#define DORMOUSE_CONCAT(a, b) DORMOUSE_CONCAT_INNER(a, b)
/// DORMOUSE_ASSIGN(auto fd, Open(path)): declares or assigns, or returns the error.
#define DORMOUSE_ASSIGN(lhs, expr) \
  DORMOUSE_ASSIGN_INNER(DORMOUSE_CONCAT(dormouse_result_, __LINE__), lhs, expr)
#define DORMOUSE_ASSIGN_INNER(tmp, lhs, expr)                                   \
  auto tmp = (expr);                                                            \
  if (!tmp) return ::tl::unexpected<::dormouse::Error>(std::move(tmp).error()); \
  lhs = std::move(*tmp)
