// How the fake guest behaves: words that a test writes, read anew at each boot and restore.
//
// From three places, the later one winning: the file `fake.knobs` beside the program, the token
// `dormouse.fake=<word>,<word>` of the kernel command line, and the file `<vsock socket>.fake`.
// Words:
//   boot-ms=N             the guest agent answers N ms after the boot
//   init=hang             it never does
//   serial=flood          the guest writes to its serial line for ever
//   vsock=silent|endless|garbage|lengths   what answers on the guest's port is hostile
//   crash-ms=N  poweroff-ms=N  reboot-ms=N  panic-ms=N   the VMM dies, or the guest does this, N ms
//   after
//                         it runs; a reboot once per process
//   touch-mib=N           guest memory that the boot writes (default 1)
//   events=flood          the guest resets its devices for ever
//   api=hang-in-pause|silent   the VMM answers no more, from vm.pause on or at once; its guest runs
//   on. Read at each
//                         request, so that a test can say it to a VMM that runs
// Unknown words are ignored.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dormouse::fake_vmm {

enum class ApiHang { kNever, kInPause, kAlways };
enum class Hostility { kNone, kSilent, kEndless, kGarbage, kLengths };

struct Knobs {
  uint64_t boot_ms = 0;
  bool hang = false;
  bool serial_flood = false;
  bool event_flood = false;
  Hostility vsock = Hostility::kNone;
  ApiHang api = ApiHang::kNever;
  std::optional<uint64_t> crash_ms;
  std::optional<uint64_t> poweroff_ms;
  std::optional<uint64_t> reboot_ms;
  std::optional<uint64_t> panic_ms;
  uint64_t touch_mib = 1;
};

/// Adds the words of `text`, separated by white space or commas.
void ParseWords(std::string_view text, Knobs* knobs);
Knobs ReadKnobs(const std::string& cmdline, const std::string& vsock_socket);

}  // namespace dormouse::fake_vmm
