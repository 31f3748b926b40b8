// What dormouse-launch is told: lines of "key=value" in a memory file. Written by the agent
// (host/launch.cc), read strictly by the launcher: an unknown key, a missing one or a malformed
// value ends the launch.
//
// Depends on nothing but the C++ library, as the launcher is static and small. Pure.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dormouse::launch {

/// The launcher's open files, by number. 1 and 2 become the VMM's; the rest are closed before it
/// runs.
enum LauncherFd : int {
  kControlFd = 3,     ///< SOCK_SEQPACKET: see Message
  kSpecFd = 4,        ///< the spec's memory file
  kCgroupFd = 5,      ///< a cgroup2 directory, to be born into
  kNetNsFd = 6,       ///< to be joined
  kHostMountsFd = 7,  ///< present when host_mounts=1
};

/// What the launcher sends: 'P' + pid in decimal, with the VMM's pidfd attached; then nothing more
/// when the VMM's program runs (end of file), or 'E' + the step that failed, in words.
inline constexpr char kMessageProcess = 'P';
inline constexpr char kMessageError = 'E';
inline constexpr size_t kLargestMessage = 4096;

struct Bind {
  std::string host_path;
  std::string inner_path;
  bool writable = false;
  bool executable = false;
  bool operator==(const Bind&) const = default;
};

struct Device {
  std::string inner_path;
  uint32_t major = 0;
  uint32_t minor = 0;
  bool block = false;
  bool operator==(const Device&) const = default;
};

struct Spec {
  std::vector<std::string> command;  ///< command[0] is an absolute path inside
  uid_t uid = 0;
  gid_t gid = 0;
  std::string mount_point;  ///< an empty directory of the host
  std::vector<Bind> binds;
  std::vector<Device> devices;
  bool system_libraries = false;
  bool host_mounts = false;
  uint64_t max_open_files = 0;
  uint64_t max_file_bytes = 0;
  int oom_score_adjust = 0;
  bool operator==(const Spec&) const = default;
};

/// False, with the reason, when a value cannot be written (a newline or NUL in it).
bool FormatSpec(const Spec& spec, std::string* text, std::string* error);
bool ParseSpec(std::string_view text, Spec* spec, std::string* error);

}  // namespace dormouse::launch
