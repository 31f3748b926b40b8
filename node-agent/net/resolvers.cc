#include "node-agent/net/resolvers.h"

#include <arpa/inet.h>

#include <sstream>

namespace dormouse::net {

std::vector<std::string> ResolversIn(std::string_view resolv_conf) {
  std::vector<std::string> found;
  std::istringstream lines{std::string(resolv_conf)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string keyword, address;
    in_addr raw{};
    if (fields >> keyword >> address && keyword == "nameserver" &&
        ::inet_pton(AF_INET, address.c_str(), &raw) == 1 && !address.starts_with("127.")) {
      found.push_back(std::move(address));
    }
  }
  return found;
}

}  // namespace dormouse::net
