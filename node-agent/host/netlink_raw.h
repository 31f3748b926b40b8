// Netlink by hand (netlink(7)), for what libnl and libnftables have no cheap call for: one question
// with one answer, and what the kernel tells of by itself.
//
// All of the calling thread's network namespace. Not thread-safe: one thread at a time.
#pragma once

#include <linux/netlink.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {

/// A message as it came from the kernel: a header, a part of fixed size, attributes.
struct NetlinkMessage {
  const nlmsghdr* header = nullptr;
  [[nodiscard]] std::string_view payload() const;
  /// Of the attributes behind a fixed part of `fixed` bytes; nothing where there is none of that
  /// type, or the message is too short for what it says.
  [[nodiscard]] std::optional<std::string_view> Attribute(size_t fixed, uint16_t type) const;
};

/// A question: its fixed part, then attributes.
class NetlinkQuestion {
 public:
  NetlinkQuestion(uint16_t type, std::string_view fixed);
  NetlinkQuestion& Add(uint16_t type, std::string_view value);
  /// The first message of the answer, copied. kNotFound for what is not there, and for an address
  /// without a way to it.
  [[nodiscard]] Result<std::string> Ask(int protocol) const;

 private:
  std::string bytes_;
};

/// The bytes of a plain struct or number.
template <typename T>
[[nodiscard]] std::string_view BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}
/// The other way round; nothing where there are too few.
template <typename T>
[[nodiscard]] std::optional<T> ValueOf(std::string_view bytes) {
  if (bytes.size() < sizeof(T)) return std::nullopt;
  T value;
  bytes.copy(reinterpret_cast<char*>(&value), sizeof(value));
  return value;
}

/// What the kernel tells of, from when it was opened.
class NetlinkNews {
 public:
  static Result<NetlinkNews> Open(int protocol, const std::vector<int>& groups);
  /// All that has come. False when some was lost, as more came than was read: then anything may
  /// have happened.
  [[nodiscard]] bool Read(const std::function<void(const NetlinkMessage&)>& each);
  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  explicit NetlinkNews(UniqueFd socket) : socket_(std::move(socket)) {}
  UniqueFd socket_;
};

}  // namespace dormouse::host
