#include "node-agent/net/address_plan.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>

namespace dormouse::net {
namespace {

constexpr uint32_t kFirstSlotOffset = 2;  // .0 is the network, .1 the node's end
constexpr int kLongestPrefix = 20;        // 4,096 addresses
constexpr int kShortestPrefix = 8;

std::string Text(uint32_t address) {
  in_addr network_order{htonl(address)};
  char text[INET_ADDRSTRLEN] = {};
  ::inet_ntop(AF_INET, &network_order, text, sizeof(text));
  return text;
}

bool ParseIpv4(const std::string& text, uint32_t* address) {
  in_addr parsed{};
  if (::inet_pton(AF_INET, text.c_str(), &parsed) != 1) return false;
  *address = ntohl(parsed.s_addr);
  return true;
}

}  // namespace

Result<AddressRange> AddressRange::Parse(const std::string& cidr) {
  const auto slash = cidr.find('/');
  uint32_t network = 0;
  int prefix = -1;
  const bool parsed =
      slash != std::string::npos && ParseIpv4(cidr.substr(0, slash), &network) &&
      std::from_chars(cidr.data() + slash + 1, cidr.data() + cidr.size(), prefix).ptr ==
          cidr.data() + cidr.size();
  if (!parsed || prefix < kShortestPrefix || prefix > kLongestPrefix) {
    return Fail(ErrorCode::kInvalid,
                "'" + cidr + "' is no range for sandboxes: write an IPv4 CIDR of /8 to /20, like " +
                    kDefaultRange);
  }
  if ((network & ((1u << (32 - prefix)) - 1)) != 0) {
    return Fail(ErrorCode::kInvalid, "'" + cidr + "' has bits beyond its prefix");
  }
  return AddressRange(network, prefix);
}

std::string AddressRange::AddressOf(uint32_t slot) const {
  if (slot >= slots()) {
    std::fprintf(stderr, "slot %u is beyond range %s\n", slot, cidr().c_str());
    std::abort();
  }
  return Text(network_ + kFirstSlotOffset + slot);
}

Result<uint32_t> AddressRange::SlotOf(const std::string& address) const {
  uint32_t number = 0;
  if (!ParseIpv4(address, &number) || number < network_ + kFirstSlotOffset ||
      number - network_ - kFirstSlotOffset >= slots()) {
    return Fail(ErrorCode::kInvalid, "address '" + address + "' is none of range " + cidr());
  }
  return number - network_ - kFirstSlotOffset;
}

std::string AddressRange::gateway() const {
  return Text(network_ + 1);
}
std::string AddressRange::cidr() const {
  return Text(network_) + "/" + std::to_string(prefix_length_);
}

std::string VethName(const std::string& short_id) {
  return kVethPrefix + short_id;
}

}  // namespace dormouse::net
