#include "tests/fakes/fake-cloud-hypervisor/options.h"

#include <charconv>
#include <string_view>

namespace dormouse::fake_vmm {
namespace {

tl::unexpected<Complaint> Complain(int code, std::string text) {
  return tl::unexpected<Complaint>(Complaint{code, std::move(text)});
}

// "path=X" -> X; a bare value is a path, as the real one takes it for --api-socket.
std::string PathOf(std::string_view value) {
  if (value.starts_with("path=")) value.remove_prefix(5);
  return std::string(value);
}

}  // namespace

tl::expected<Options, Complaint> ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    std::string_view option = argv[i];
    std::string_view value;
    const auto equals = option.find('=');
    const bool inline_value = option.starts_with("--") && equals != std::string_view::npos;
    if (inline_value) {
      value = option.substr(equals + 1);
      option = option.substr(0, equals);
    }
    if (option == "--version" || option == "-V") {
      options.version = true;
      continue;
    }
    if (option == "--no-shutdown") {
      options.no_shutdown = true;
      continue;
    }
    if (option.starts_with("-v") && option.find_first_not_of('v', 1) == std::string_view::npos)
      continue;
    const bool known = option == "--api-socket" || option == "--event-monitor" ||
                       option == "--log-file" || option == "--log-format" || option == "--seccomp";
    if (!known)
      return Complain(2, "error: unexpected argument '" + std::string(option) + "' found\n");
    if (!inline_value) {
      if (++i >= argc) {
        return Complain(2, "error: a value is required for '" + std::string(option) +
                               "' but none was supplied\n");
      }
      value = argv[i];
    }
    if (option == "--api-socket") options.api_socket = PathOf(value);
    if (option == "--log-file") options.log_file = value;
    if (option == "--event-monitor") {
      if (value.starts_with("fd=")) {
        std::from_chars(value.data() + 3, value.data() + value.size(), options.event_fd);
      } else if (value.starts_with("path=")) {
        options.event_path = PathOf(value);
      } else {
        return Complain(1, "Error parsing --event-monitor: path or fd required\n");
      }
    }
    if (option == "--seccomp" && value != "true" && value != "false" && value != "log" &&
        value != "errno") {
      return Complain(
          2, "error: invalid value '" + std::string(value) + "' for '--seccomp <seccomp>'\n");
    }
  }
  if (!options.version && options.api_socket.empty()) {
    return Complain(2, "Launch a cloud-hypervisor VMM.\n\nUsage: cloud-hypervisor [OPTIONS]\n");
  }
  return options;
}

}  // namespace dormouse::fake_vmm
