#include "node-agent/vmm/api_error.h"

#include <charconv>
#include <nlohmann/json.hpp>

namespace dormouse::vmm {
namespace {

constexpr size_t kMaxCauses = 16;
constexpr size_t kMaxCause = 1024;

std::string Cleaned(std::string_view text) {
  std::string clean(text.substr(0, kMaxCause));
  for (char& c : clean) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return clean;
}

// N of Rust's "... (os error N)", or 0.
int OsErrorOf(std::string_view cause) {
  constexpr std::string_view kMark = "(os error ";
  const auto at = cause.rfind(kMark);
  if (at == std::string_view::npos) return 0;
  int number = 0;
  const auto digits = cause.substr(at + kMark.size());
  std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return number;
}

ErrorCode CodeOfCause(std::string_view innermost) {
  // block/src/io/fcntl.rs, LockError::AlreadyLocked
  if (innermost == "The file is already locked") return ErrorCode::kBusy;
  switch (OsErrorOf(innermost)) {
    case EADDRINUSE:
    case EBUSY:
      return ErrorCode::kBusy;
    case EEXIST:
      return ErrorCode::kAlreadyExists;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
      return ErrorCode::kNoSpace;
    case EACCES:
    case EPERM:
      return ErrorCode::kPermission;
    default:
      // ENOENT included: that a file of the config is missing is not "there is no VM".
      return ErrorCode::kInternal;
  }
}

ErrorCode CodeOf(int status, const std::vector<std::string>& chain) {
  switch (status) {
    case 400:
      return ErrorCode::kInvalid;
    case 404:
      return ErrorCode::kNotFound;
    case 429:
      return ErrorCode::kBusy;
    case 503:
      return ErrorCode::kUnavailable;
    default:
      return chain.empty() ? ErrorCode::kInternal : CodeOfCause(chain.back());
  }
}

}  // namespace

std::vector<std::string> ParseErrorChain(std::string_view body) {
  if (body.empty()) return {};
  const auto json = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> chain;
  if (json.is_array()) {
    for (const auto& cause : json) {
      if (!cause.is_string()) return {Cleaned(body)};
      // The innermost cause decides, so a chain too long loses its middle.
      if (chain.size() == kMaxCauses) chain.pop_back();
      chain.push_back(Cleaned(cause.get_ref<const std::string&>()));
    }
    return chain;
  }
  return {Cleaned(body)};
}

Error ErrorFromResponse(std::string_view call, int status, std::string_view body) {
  const std::vector<std::string> chain = ParseErrorChain(body);
  std::string text = std::string(call) + ": HTTP " + std::to_string(status);
  for (const std::string& cause : chain) {
    if (cause == "Error from API" && chain.size() > 1) continue;
    text += ": " + cause;
  }
  return Error(CodeOf(status, chain), std::move(text));
}

}  // namespace dormouse::vmm
