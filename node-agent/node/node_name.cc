#include "node-agent/node/node_name.h"

namespace dormouse {
namespace {

constexpr std::string_view kLeasePrefix = "dormouse-node-";
constexpr size_t kLongestObjectName = 253;

bool IsAlphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/// Labels of lower-case letters, digits and '-', joined by dots, each beginning and ending
/// alphanumerically.
bool IsSubdomain(std::string_view text) {
  char before = '.';
  for (const char c : text) {
    const bool inner = c == '-' || c == '.';
    if (!inner && !IsAlphanumeric(c)) return false;
    if (inner && before == '.') return false;
    if (c == '.' && before == '-') return false;
    before = c;
  }
  return IsAlphanumeric(before);
}

}  // namespace

Result<NodeName> NodeName::Parse(std::string_view text) {
  if (text.empty()) return Fail(ErrorCode::kInvalid, "the node's name is empty");
  if (text.size() > kLongestObjectName - kLeasePrefix.size() || !IsSubdomain(text)) {
    return Fail(ErrorCode::kInvalid,
                "node name '" + std::string(text.substr(0, kLongestObjectName)) +
                    "': lower-case letters, digits, '-' and '.' are allowed, "
                    "239 characters at most, as in the name of its Node object");
  }
  return NodeName(text);
}

std::string NodeName::LeaseName() const {
  return std::string(kLeasePrefix) + text_;
}

}  // namespace dormouse
