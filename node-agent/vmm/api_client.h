// Cloud Hypervisor's REST API over its unix socket (docs/api.md of v53.0).
//
// Thread-safe: every call opens a connection of its own. The VMM is strictly serial, so any call
// waits behind a running Boot, Snapshot or Restore: how long a Ping takes says nothing about
// liveness, use the pidfd and the event monitor for that. At most 10 connections are served at a
// time.
//
// Errors: what ErrorFromResponse says where the VMM answered; kUnavailable where it could not be
// reached, went away or did not speak HTTP; kPermission where somebody else listens on its socket;
// kDeadline where it did not answer in time (the call may still take effect); kCorrupt where the
// body is not what the API promises.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "node-agent/host/beneath.h"
#include "node-agent/host/vmm_socket.h"
#include "node-agent/vmm/version.h"
#include "node-agent/vmm/vm_config.h"
#include "src/common/base/result.h"

namespace dormouse::vmm {

/// How long each kind of call may take. Defaults hold in an emulated node.
struct ApiTimeouts {
  std::chrono::milliseconds query{10'000};   ///< Ping, Info
  std::chrono::milliseconds change{30'000};  ///< Create, Resume, Delete
  std::chrono::milliseconds boot{60'000};
  std::chrono::milliseconds pause{40'000};      ///< the VMM drains block I/O for up to 30 s
  std::chrono::milliseconds snapshot{600'000};  ///< dense write of all RAM; cannot be cancelled
  std::chrono::milliseconds restore{600'000};
};

struct PingReply {
  VmmVersion version;
  int64_t pid = 0;
};

/// vm.rs::VmState. After vm.shutdown a VM reads kCreated again.
enum class VmState { kCreated, kRunning, kShutdown, kPaused, kBreakPoint };
[[nodiscard]] std::string_view VmStateName(VmState state);

struct VmInfo {
  VmState state = VmState::kCreated;
  uint64_t memory_actual_bytes = 0;
  std::string config_json;  ///< the VmConfig as the VMM holds it
};

/// How vm.restore brings memory back. OnDemand is left out: v53's is not lazy, and v52's can
/// corrupt.
struct RestoreRequest {
  std::string source_directory;  ///< holds config.json, state.json, memory-ranges
  bool resume = false;           ///< run the vCPUs at once; v52 and later
};

class ApiClient {
 public:
  explicit ApiClient(host::VmmSocket socket, ApiTimeouts timeouts = {});

  /// Pings until the VMM answers; looks at `pidfd` meanwhile where that is not negative, so that a
  /// VMM that died at start fails at once (kUnavailable "... exited") and not at the deadline.
  Result<PingReply> AwaitReady(std::chrono::milliseconds limit, int pidfd = -1) const;

  Result<PingReply> Ping() const;
  /// kInvalid for a bad config, before the VMM hears of it. The VMM binds serial_socket here, which
  /// must not exist: remove it before, as v53.0 leaves it behind when a VM that never booted is
  /// deleted. When it is refused, no config stays behind (v53.0 alone keeps it), but for that of a
  /// VM that was there before.
  Result<> Create(const VmConfig& config) const;
  /// What Create made. A boot that v53.0 refuses loses the device it failed at from its config, and
  /// the next one would run the guest without its disk. So a refused boot, or one that finds a
  /// config that lost a device, deletes the VM: Info is then kNotFound, and the way on is Create.
  Result<> Boot() const;
  /// Fails when paused already (500): ask Info first when that is possible.
  Result<> Pause() const;
  Result<> Resume() const;
  Result<> Delete() const;
  /// kNotFound when no VM was created.
  Result<VmInfo> Info() const;

  /// The stock snapshot of a paused VM, into a directory that is there and holds none of its three
  /// files (kAlreadyExists otherwise). Nothing is fsynced; a failed one leaves partial files
  /// behind.
  Result<> Snapshot(const std::string& directory) const;
  /// config.json and state.json only: `directory` holds an empty memory-ranges (this makes it),
  /// which makes the VMM stop with EEXIST after the other two are whole. Success is exactly that
  /// answer; any other is kUnsupported, and means: remove the directory, take Snapshot(); but for
  /// a lack of room, which is kNoSpace. Admission::kFull only. The directory is the VMM's: take it
  /// back and parse both files before anything is built upon them. `host_directory` is the same
  /// directory as we see it.
  Result<> SnapshotStateOnly(const std::string& directory,
                             const host::Directory& host_directory) const;
  /// Into a VMM that has no VM. On failure the VMM lives on and may be asked again.
  Result<> Restore(const RestoreRequest& request) const;

 private:
  struct Reply {
    int status = 0;
    std::string body;
  };
  Result<Reply> Exchange(const char* method, const char* endpoint, const std::string& body,
                         std::chrono::milliseconds timeout) const;
  Result<std::string> Call(const char* method, const char* endpoint, const std::string& body,
                           std::chrono::milliseconds timeout) const;

  host::VmmSocket socket_;
  ApiTimeouts timeouts_;
};

/// Parsers of the answers, for tests and fuzzing: strict in types, blind to unknown keys. kCorrupt.
Result<PingReply> ParsePing(std::string_view body);
Result<VmInfo> ParseVmInfo(std::string_view body);

}  // namespace dormouse::vmm
