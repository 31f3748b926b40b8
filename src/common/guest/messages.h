// The JSON payloads of the guest protocol (frame.h): requests of the host, answers of the guest.
//
// Encode* cannot fail: what does not fit a frame comes back as an error from the function that
// makes the whole request (Encode returns Result where a user's input decides the size). Parse* is
// strict: a missing field, a wrong type, a number out of range or a string above its cap is
// kInvalid; fields that are not known are ignored, so that either side may be the newer one. Pure
// functions; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/common/base/result.h"
#include "src/common/guest/frame.h"

namespace dormouse::guest {

using EnvVar = std::pair<std::string, std::string>;  ///< name (no '=', not empty), value

/// A program to run. What is empty is taken from ConfigureRequest's defaults.
struct ProcessSpec {
  std::vector<std::string> argv;
  std::vector<EnvVar> env;  ///< added to the defaults'; the later value of a name wins
  std::string working_dir;
  std::string user;  ///< "name", "uid", "name:group", "uid:gid"; looked up in the guest's own files
};

enum class WorkloadState { kNone, kRunning, kExited };

struct WorkloadStatus {
  WorkloadState state = WorkloadState::kNone;
  std::string id;             ///< StartWorkloadRequest::id
  ExitStatus exit;            ///< meaningful when kExited
  int64_t started_at_ms = 0;  ///< guest's wall clock, milliseconds since 1970; 0 = never
  int64_t finished_at_ms = 0;
  std::string detail{};  ///< why its program could not be run, where exit has a shell's 126 or 127
};

struct HealthReply {
  std::string agent_version;
  std::string boot_id;     ///< of the guest's kernel: another one means that the guest rebooted
  uint64_t uptime_ms = 0;  ///< CLOCK_BOOTTIME
  bool configured = false;
  bool frozen = false;                ///< between a freeze and its thaw: starts nothing new
  std::vector<std::string> features;  ///< what this agent can beyond protocol version 1
  std::vector<std::string>
      warnings;  ///< what went wrong at boot and did not stop it (a disk that did not grow)
  WorkloadStatus workload;
};

/// How a guest finds names: resolv.conf(5). What is empty is its own choice (names.h).
struct Dns {
  std::vector<std::string> nameservers, searches, options;
  bool operator==(const Dns&) const = default;
};

/// Identity and defaults. May be sent again: a clone gets its own before anything thaws.
struct ConfigureRequest {
  std::optional<std::string> hostname;
  std::string machine_id;   ///< as Identity's; empty leaves it
  bool fresh_disk = false;  ///< nothing of a tenant is on it: its host keys are the image's
  Dns dns;                  ///< what the sandbox's user asks for
  std::vector<std::string> resolvers;   ///< the node's
  std::optional<int64_t> wall_time_ns;  ///< since 1970
  std::string entropy;  ///< raw bytes, none or 16..512; credited to the kernel, which then reseeds
  std::vector<EnvVar> env;  ///< for all that runs from now on
  std::string working_dir;
  std::string user;
};

/// The same id again is answered with the status of what runs: a retry starts nothing twice.
/// Another id while one runs is kBusy; after an exit it starts anew.
struct StartWorkloadRequest {
  std::string id;
  ProcessSpec process;
  bool console = false;  ///< copy its output to the serial console too (slow)
};

struct WorkloadStatusRequest {
  uint32_t wait_ms = 0;  ///< answer at the workload's end, or after so long; at most kMaxWaitMs
};
inline constexpr uint32_t kMaxWaitMs = 60'000;

/// SIGTERM to the workload's main process, SIGKILL to all of it after the grace; answered when
/// ended.
struct StopWorkloadRequest {
  uint32_t grace_ms = 10'000;
};

struct ExecRequest {
  ProcessSpec process;
  bool tty = false;
  bool stdin_open = false;  ///< false: /dev/null
  TerminalSize size;
};

struct LogsRequest {
  uint64_t tail_bytes = UINT64_MAX;  ///< how much of the past
  bool follow = false;
};

inline constexpr uint32_t kMaxGraceMs = 3'600'000;
struct PowerOffRequest {
  bool reboot = false;
  uint32_t grace_ms = 2'000;  ///< between SIGTERM and SIGKILL to everything; at most kMaxGraceMs
};

/// Before a snapshot: from now on nothing new is started (kUnavailable, "frozen: ..."), the
/// workload's processes and those of execs stand still, file systems are written back. What the
/// limit cuts off is told in the reply, and the guest stays frozen all the same, until it is
/// thawed. The same again is success at once. A guest that was never configured can be frozen.
struct FreezeRequest {
  uint32_t limit_ms = 5'000;  ///< at most kMaxWaitMs
};

struct FreezeReply {
  bool frozen = false;  ///< every process of the sandbox stands still
  std::string detail;   ///< what the limit cut off: processes that go on, a sync that did not end
  uint32_t took_ms = 0;
  std::string agent_version{};  ///< empty from agents that do not say it here
};

/// What makes a clone somebody else than its source.
struct Identity {
  std::string hostname;
  std::string machine_id;  ///< 32 lower-case hexadecimal digits, not all zero (machine-id(5))
};

/// After it: entropy in, generator reseeded, clock set, identity repaired, hooks run, and only then
/// the processes go on. An error means that nothing was thawed; the same can be asked again.
/// A guest that is not frozen takes entropy and clock and answers success, but for an identity that
/// it does not have already: kConflict.
struct ThawRequest {
  int64_t wall_time_ns = 0;  ///< since 1970; 0 leaves the clock as it is
  std::string entropy;       ///< as ConfigureRequest's; none only if it went on where it stood
  std::optional<Identity> new_identity;  ///< for a clone; none: it is who it was
  bool is_resume = false;  ///< woken in another VMM: connections from before the freeze are closed
};

/// Caps on strings; both sides hold them.
inline constexpr size_t kMaxHostname = 64;
inline constexpr size_t kMachineIdDigits = 32;
inline constexpr size_t kMaxDnsWord = 255;
inline constexpr size_t kMaxId = 128;
inline constexpr size_t kMaxErrorText = 2048;

// Each Encode gives a whole frame. kInvalid when it would exceed a frame: too much argv or env.
[[nodiscard]] std::string EncodeHealthRequest();
[[nodiscard]] Result<std::string> Encode(const ConfigureRequest& request);
[[nodiscard]] Result<std::string> Encode(const StartWorkloadRequest& request);
[[nodiscard]] Result<std::string> Encode(const ExecRequest& request);
[[nodiscard]] std::string Encode(const WorkloadStatusRequest& request);
[[nodiscard]] std::string Encode(const StopWorkloadRequest& request);
[[nodiscard]] std::string Encode(const LogsRequest& request);
[[nodiscard]] std::string Encode(const PowerOffRequest& request);
[[nodiscard]] std::string Encode(const FreezeRequest& request);
[[nodiscard]] Result<std::string> Encode(const ThawRequest& request);

[[nodiscard]] Result<ConfigureRequest> ParseConfigure(std::string_view json);
[[nodiscard]] Result<StartWorkloadRequest> ParseStartWorkload(std::string_view json);
[[nodiscard]] Result<WorkloadStatusRequest> ParseWorkloadStatusRequest(std::string_view json);
[[nodiscard]] Result<StopWorkloadRequest> ParseStopWorkload(std::string_view json);
[[nodiscard]] Result<ExecRequest> ParseExec(std::string_view json);
[[nodiscard]] Result<LogsRequest> ParseLogs(std::string_view json);
[[nodiscard]] Result<PowerOffRequest> ParsePowerOff(std::string_view json);
[[nodiscard]] Result<FreezeRequest> ParseFreeze(std::string_view json);
[[nodiscard]] Result<ThawRequest> ParseThaw(std::string_view json);

// Answers, as kReply frames; an empty answer is "{}".
[[nodiscard]] std::string EncodeReply(const HealthReply& reply);
[[nodiscard]] std::string EncodeReply(const WorkloadStatus& reply);
[[nodiscard]] std::string EncodeReply(const FreezeReply& reply);
[[nodiscard]] std::string EncodeEmptyReply();
[[nodiscard]] Result<HealthReply> ParseHealthReply(std::string_view json);
[[nodiscard]] Result<WorkloadStatus> ParseWorkloadStatus(std::string_view json);
[[nodiscard]] Result<FreezeReply> ParseFreezeReply(std::string_view json);

/// A kError frame: the code's name and the message, cut to kMaxErrorText.
[[nodiscard]] std::string EncodeError(const Error& error);
/// The Error that a kError frame tells. An unknown code is kInternal; kCorrupt is not believed.
[[nodiscard]] Error ParseError(std::string_view json);

}  // namespace dormouse::guest
