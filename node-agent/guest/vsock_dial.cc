#include "node-agent/guest/vsock_dial.h"

#include <algorithm>

#include "src/common/guest/frame.h"

namespace dormouse {
namespace {

/// "OK " and a port number: the VMM's answer is never longer.
constexpr size_t kMaxHandshake = 32;

bool IsHandshake(std::string_view line) {
  if (!line.starts_with("OK ") || line.size() < 4) return false;
  return std::all_of(line.begin() + 3, line.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::string VsockOpening(std::string_view first) {
  std::string opening = "CONNECT " + std::to_string(guest::kVsockPort) + "\n";
  opening += first;
  return opening;
}

Result<size_t> HandshakeBytes(std::string_view seen) {
  const size_t end = seen.find('\n');
  if (end == std::string_view::npos ? seen.size() > kMaxHandshake : end > kMaxHandshake) {
    return Fail(ErrorCode::kCorrupt, "vsock handshake without an end");
  }
  if (end == std::string_view::npos) return 0;
  if (!IsHandshake(seen.substr(0, end))) {
    return Fail(ErrorCode::kCorrupt, "vsock handshake is not OK <port>");
  }
  return end + 1;
}

}  // namespace dormouse
