#include "tests/fakes/fake-cloud-hypervisor/knobs.h"

#include <unistd.h>

#include <charconv>
#include <climits>

#include "src/common/base/files.h"

namespace dormouse::fake_vmm {
namespace {

constexpr size_t kMaxKnobsBytes = 4096;

std::string BesideTheProgram() {
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof(path));
  if (length <= 0) return {};
  const std::string program(path, static_cast<size_t>(length));
  return program.substr(0, program.rfind('/')) + "/fake.knobs";
}

}  // namespace

void ParseWords(std::string_view text, Knobs* knobs) {
  constexpr std::string_view kSeparators = " \t\r\n,";
  while (!text.empty()) {
    const auto end = std::min(text.find_first_of(kSeparators), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const auto equals = word.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view name = word.substr(0, equals);
    const std::string_view value = word.substr(equals + 1);
    uint64_t number = 0;
    const bool numeric =
        std::from_chars(value.data(), value.data() + value.size(), number).ec == std::errc();
    if (name == "init") knobs->hang = value == "hang";
    if (name == "serial") knobs->serial_flood = value == "flood";
    if (name == "events") knobs->event_flood = value == "flood";
    if (name == "api") {
      knobs->api = value == "silent"          ? ApiHang::kAlways
                   : value == "hang-in-pause" ? ApiHang::kInPause
                                              : ApiHang::kNever;
    }
    if (name == "vsock") {
      knobs->vsock = value == "silent"    ? Hostility::kSilent
                     : value == "endless" ? Hostility::kEndless
                     : value == "garbage" ? Hostility::kGarbage
                     : value == "lengths" ? Hostility::kLengths
                                          : Hostility::kNone;
    }
    if (!numeric) continue;
    if (name == "boot-ms") knobs->boot_ms = number;
    if (name == "crash-ms") knobs->crash_ms = number;
    if (name == "poweroff-ms") knobs->poweroff_ms = number;
    if (name == "reboot-ms") knobs->reboot_ms = number;
    if (name == "panic-ms") knobs->panic_ms = number;
    if (name == "touch-mib") knobs->touch_mib = number;
  }
}

Knobs ReadKnobs(const std::string& cmdline, const std::string& vsock_socket) {
  Knobs knobs;
  if (const auto text = ReadFile(BesideTheProgram(), kMaxKnobsBytes)) ParseWords(*text, &knobs);
  constexpr std::string_view kToken = "dormouse.fake=";
  for (size_t at = cmdline.find(kToken); at != std::string::npos;
       at = cmdline.find(kToken, at + 1)) {
    const auto end = cmdline.find(' ', at);
    const size_t from = at + kToken.size();
    ParseWords(std::string_view(cmdline).substr(from, end == std::string::npos ? end : end - from),
               &knobs);
  }
  if (!vsock_socket.empty()) {
    if (const auto text = ReadFile(vsock_socket + ".fake", kMaxKnobsBytes))
      ParseWords(*text, &knobs);
  }
  return knobs;
}

}  // namespace dormouse::fake_vmm
