// The DNS servers that the node itself uses, as guests can use them. Pure; thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dormouse::net {

/// The IPv4 nameservers of a resolv.conf(5), in their order. None of the loopback: that is another
/// one in a guest. No IPv6: a guest's link has none.
[[nodiscard]] std::vector<std::string> ResolversIn(std::string_view resolv_conf);

}  // namespace dormouse::net
