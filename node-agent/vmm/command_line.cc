#include "node-agent/vmm/command_line.h"

namespace dormouse::vmm {
namespace {

Result<> Check(const std::string& field, const std::string& path) {
  if (path.empty()) return Fail(ErrorCode::kInvalid, "VMM command line: " + field + " is missing");
  if (path.front() != '/') {
    return Fail(ErrorCode::kInvalid,
                "VMM command line: " + field + " is not an absolute path: " + path);
  }
  if (path.find_first_of(std::string(",=\"[]\n\0", 7)) != std::string::npos) {
    return Fail(ErrorCode::kInvalid,
                "VMM command line: " + field + " holds a character of the option syntax: " + path);
  }
  return {};
}

}  // namespace

std::string ApiSocketName(uint64_t incarnation) {
  return "api-" + std::to_string(incarnation) + ".sock";
}

Result<std::vector<std::string>> BuildCommandLine(const CommandSpec& spec) {
  DORMOUSE_TRY(Check("binary", spec.binary));
  DORMOUSE_TRY(Check("api_socket", spec.api_socket));
  DORMOUSE_TRY(Check("event_file", spec.event_file));
  DORMOUSE_TRY(Check("log_file", spec.log_file));
  if (spec.api_socket.size() > kMaxUnixPath) {
    return Fail(ErrorCode::kInvalid,
                "VMM command line: api_socket is longer than a unix socket's 107 bytes: " +
                    spec.api_socket);
  }
  return std::vector<std::string>{
      spec.binary,
      "--api-socket",
      "path=" + spec.api_socket,
      "--event-monitor",
      "path=" + spec.event_file,
      "--log-file",
      spec.log_file,
      "--seccomp",
      "true",
      "--no-shutdown",
  };
}

}  // namespace dormouse::vmm
