#include "src/common/base/result.h"

#include <cerrno>
#include <cstring>

namespace dormouse {
namespace {

ErrorCode CodeOf(int errnum) {
  switch (errnum) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
    case ESRCH:
      return ErrorCode::kNotFound;
    case EEXIST:
      return ErrorCode::kAlreadyExists;
    case EBUSY:
    case ETXTBSY:
      return ErrorCode::kBusy;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:  // a limit of this process, or of the file system
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return ErrorCode::kNoSpace;
    case EACCES:
    case EPERM:
      return ErrorCode::kPermission;
    case EINVAL:
    case ENAMETOOLONG:
    case ELOOP:
      return ErrorCode::kInvalid;
    case ETIMEDOUT:
      return ErrorCode::kDeadline;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
    case EAGAIN:
    case EINTR:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENOTCONN:
      return ErrorCode::kUnavailable;
    case ENOSYS:
    case EOPNOTSUPP:
    case ENOTTY:
      return ErrorCode::kUnsupported;
    case ECANCELED:
      return ErrorCode::kCancelled;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

std::string_view ErrorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnavailable:
      return "Unavailable";
    case ErrorCode::kDeadline:
      return "Deadline";
    case ErrorCode::kConflict:
      return "Conflict";
    case ErrorCode::kNotFound:
      return "NotFound";
    case ErrorCode::kAlreadyExists:
      return "AlreadyExists";
    case ErrorCode::kBusy:
      return "Busy";
    case ErrorCode::kNoSpace:
      return "NoSpace";
    case ErrorCode::kInvalid:
      return "Invalid";
    case ErrorCode::kPermission:
      return "Permission";
    case ErrorCode::kCorrupt:
      return "Corrupt";
    case ErrorCode::kUnsupported:
      return "Unsupported";
    case ErrorCode::kCancelled:
      return "Cancelled";
    case ErrorCode::kInternal:
      return "Internal";
  }
  return "Unknown";
}

Error Error::FromErrno(std::string_view what, int errnum) {
  const char* name = ::strerrorname_np(errnum);
  std::string text(what);
  text += ": ";
  text += name != nullptr ? name : "errno " + std::to_string(errnum);
  text += " (";
  text += ::strerrordesc_np(errnum) != nullptr ? ::strerrordesc_np(errnum) : "?";
  text += ")";
  Error error(CodeOf(errnum), std::move(text));
  error.errnum_ = errnum;
  return error;
}

Error Error::Wrap(std::string_view context) const {
  Error wrapped = *this;
  wrapped.message_ = std::string(context) + ": " + message_;
  return wrapped;
}

Error Error::WithRetryAfter(std::chrono::seconds after) const {
  Error copy = *this;
  copy.retry_after_ = after;
  return copy;
}

Error Error::WithCode(ErrorCode code) const {
  Error copy = *this;
  copy.code_ = code;
  return copy;
}

bool Error::IsRetryable() const {
  return code_ != ErrorCode::kInvalid && code_ != ErrorCode::kCorrupt &&
         code_ != ErrorCode::kUnsupported;
}

tl::unexpected<Error> FailErrno(std::string_view what) {
  return FailErrno(what, errno);
}

tl::unexpected<Error> FailErrno(std::string_view what, int errnum) {
  return tl::unexpected<Error>(Error::FromErrno(what, errnum));
}

}  // namespace dormouse
