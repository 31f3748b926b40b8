#include "guest-agent/init/names.h"

#include <arpa/inet.h>

#include <sstream>

namespace dormouse::guest {
namespace {

constexpr char kLoopback[] = "127.0.1.1";  // Debian's, for a name without an address

/// Words of the lines that begin with `keyword`.
std::vector<std::string> WordsAfter(std::string_view text, std::string_view keyword) {
  std::vector<std::string> words;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string word;
    if (!(fields >> word) || word != keyword) continue;
    while (fields >> word) words.push_back(word);
  }
  return words;
}

std::string Line(std::string_view keyword, const std::vector<std::string>& words) {
  if (words.empty()) return {};
  std::string line(keyword);
  for (const std::string& word : words) line += " " + word;
  return line + "\n";
}

bool OfLoopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1";
}

}  // namespace

std::string HostsText(const std::string& hostname, uint32_t address, std::string_view image) {
  std::string text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
  if (!hostname.empty()) {
    char shown[INET_ADDRSTRLEN] = {};
    const in_addr raw{address};
    const bool own = address != 0 && ::inet_ntop(AF_INET, &raw, shown, sizeof(shown)) != nullptr;
    text += std::string(own ? shown : kLoopback) + " " + hostname;
    if (const size_t dot = hostname.find('.'); dot != std::string::npos)
      text += " " + hostname.substr(0, dot);
    text += "\n";
  }
  return text.append(image);
}

std::optional<std::string> ResolvConfText(const Dns& asked, const std::vector<std::string>& node,
                                          std::string_view image) {
  const bool asks = !asked.nameservers.empty() || !asked.searches.empty() || !asked.options.empty();
  if (!asks) {
    for (const std::string& server : WordsAfter(image, "nameserver")) {
      if (!OfLoopback(server)) return std::nullopt;
    }
    if (node.empty()) return std::nullopt;
  }
  std::string text;
  for (const std::string& server : asked.nameservers.empty() ? node : asked.nameservers)
    text += "nameserver " + server + "\n";
  text += Line("search", asked.searches.empty() ? WordsAfter(image, "search") : asked.searches);
  text += Line("options", asked.options.empty() ? WordsAfter(image, "options") : asked.options);
  return text;
}

}  // namespace dormouse::guest
