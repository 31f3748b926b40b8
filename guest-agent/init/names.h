// The texts of /etc/hosts and /etc/resolv.conf (hosts(5), resolv.conf(5)). Pure; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/guest/messages.h"

namespace dormouse::guest {

/// localhost and the machine's own name first, so that they win; then what the image's file has.
/// `address` is IPv4 in network byte order, 0 where there is none.
[[nodiscard]] std::string HostsText(const std::string& hostname, uint32_t address,
                                    std::string_view image);

/// What `asked` says, completed by `node`, the node's resolvers. Where it says nothing, the image's
/// own file stands (nothing is returned) if it names a resolver that can answer: not one of the
/// loopback, where nobody serves when a machine starts.
[[nodiscard]] std::optional<std::string> ResolvConfText(const Dns& asked,
                                                        const std::vector<std::string>& node,
                                                        std::string_view image);

}  // namespace dormouse::guest
