#include "guest-agent/init/kernel_args.h"

#include <arpa/inet.h>
#include <net/if.h>

#include <charconv>

namespace dormouse::guest {
namespace {

/// Cuts off the text before `at`; the rest (or nothing) stays in `text`.
std::string_view Cut(std::string_view& text, std::string_view at) {
  const size_t end = text.find_first_of(at);
  const std::string_view head = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  return head;
}

std::optional<uint32_t> ParseIpv4(std::string_view text) {
  in_addr address{};
  if (::inet_pton(AF_INET, std::string(text).c_str(), &address) != 1) return std::nullopt;
  return address.s_addr;
}

bool IsMask(uint32_t mask) {
  const uint32_t bits = ~ntohl(mask);
  return (bits & (bits + 1)) == 0;
}

tl::unexpected<Error> Bad(std::string_view name, std::string_view value) {
  return Fail(ErrorCode::kInvalid,
              "kernel argument " + std::string(name) + "=" + std::string(value.substr(0, 200)));
}

}  // namespace

Result<NetworkArgs> ParseIpArg(std::string_view value) {
  std::string_view rest = value;
  const auto address = ParseIpv4(Cut(rest, ":"));
  (void)Cut(rest, ":");  // the boot server
  const std::string_view gateway_text = Cut(rest, ":");
  const auto mask = ParseIpv4(Cut(rest, ":"));
  NetworkArgs args;
  args.hostname = Cut(rest, ":");
  args.interface = Cut(rest, ":");
  if (args.interface.empty()) args.interface = "eth0";
  const std::string_view autoconf = Cut(rest, ":");
  if (!address || !mask || !IsMask(*mask)) return Bad("ip", value);
  if (!autoconf.empty() && autoconf != "off" && autoconf != "none") return Bad("ip", value);
  if (args.interface.size() >= IFNAMSIZ || args.hostname.size() > 64) return Bad("ip", value);
  if (!gateway_text.empty()) {
    const auto gateway = ParseIpv4(gateway_text);
    if (!gateway) return Bad("ip", value);
    args.gateway = *gateway;
  }
  args.address = *address;
  args.mask = *mask;
  return args;
}

Result<KernelArgs> ParseKernelArgs(std::string_view cmdline) {
  KernelArgs args;
  while (!cmdline.empty()) {
    std::string_view value = Cut(cmdline, " \t\n");
    if (value == "ro") args.read_only = true;
    if (value == "rw") args.read_only = false;
    if (value == "--") break;  // what follows is for init's argv
    if (value.find('=') == std::string_view::npos) continue;
    const std::string_view name = Cut(value, "=");
    if (name == "root") {
      if (!value.starts_with("/dev/")) return Bad(name, value);
      args.root = value;
    } else if (name == "rootfstype") {
      args.root_fstype = value;
    } else if (name == "rootflags") {
      args.root_flags = value;
    } else if (name == "ip" && value != "off" && value != "none") {
      DORMOUSE_ASSIGN(args.network, ParseIpArg(value));
    } else if (name == "panic") {
      int seconds = 0;
      const auto end = std::from_chars(value.data(), value.data() + value.size(), seconds);
      if (end.ec == std::errc()) args.panic = seconds;
    }
  }
  return args;
}

}  // namespace dormouse::guest
