// Which host-side address a sandbox has: slot n of a configurable IPv4 range, the same for as long
// as the sandbox lives, asleep too. The guest's own side is the same in every sandbox.
//
// Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "src/common/base/result.h"

namespace dormouse::net {

inline constexpr char kGuestAddress[] = "169.254.0.21";
inline constexpr char kGuestGateway[] = "169.254.0.22";
inline constexpr char kGuestNetwork[] = "169.254.0.20/30";
inline constexpr int kGuestPrefixLength = 30;
inline constexpr char kGuestMac[] = "02:FC:00:00:00:05";
inline constexpr char kTapMac[] = "02:fc:00:00:00:01";
inline constexpr char kTapName[] = "tap0";
inline constexpr char kInnerVeth[] = "eth0";
inline constexpr char kVethPrefix[] = "dmv";
inline constexpr char kDefaultRange[] = "10.201.0.0/16";

/// An IPv4 range of at least 4,096 addresses. Address 1 is the node's end of every veth; slots
/// follow.
class AddressRange {
 public:
  /// "10.201.0.0/16"; kInvalid with what to write instead.
  static Result<AddressRange> Parse(const std::string& cidr);

  [[nodiscard]] uint32_t slots() const { return (1u << (32 - prefix_length_)) - 3; }
  /// slot 0 is the third address of the range. Aborts when `slot` is out of range.
  [[nodiscard]] std::string AddressOf(uint32_t slot) const;
  /// The slot of an address; kInvalid when it is not one of the range's slots.
  Result<uint32_t> SlotOf(const std::string& address) const;
  [[nodiscard]] std::string gateway() const;
  [[nodiscard]] std::string cidr() const;

 private:
  AddressRange(uint32_t network, int prefix_length)
      : network_(network), prefix_length_(prefix_length) {}
  uint32_t network_;
  int prefix_length_;
};

/// "dmv<short id>": 15 characters, an interface name's most.
[[nodiscard]] std::string VethName(const std::string& short_id);

}  // namespace dormouse::net
