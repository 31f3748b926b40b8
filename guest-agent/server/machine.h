// What the server does to the machine it runs on: the one seam between protocol and effects.
//
// PID 1 of a guest implements it for real; a stand-in guest records or ignores. Called on the
// server's thread only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "guest-agent/server/passwd.h"
#include "src/common/base/result.h"
#include "src/common/guest/messages.h"

namespace dormouse::guest {

/// What the server knows that its guest's memory carries through a snapshot.
struct ServerState {
  bool configured = false;
  bool frozen = false;
  WorkloadStatus workload;
};

class Machine {
 public:
  virtual ~Machine() = default;
  [[nodiscard]] virtual Result<void> SetHostname(const std::string& hostname) = 0;
  [[nodiscard]] virtual Result<void> SetWallTime(int64_t since_1970_ns) = 0;
  /// Mixed in and credited, then the kernel's generator is reseeded: when this returns, no number
  /// that it gives is one that another clone gets.
  [[nodiscard]] virtual Result<void> AddEntropy(std::string_view bytes) = 0;
  [[nodiscard]] virtual Result<void> SetMachineId(const std::string&) { return {}; }
  /// `resolvers`: the node's, for what `asked` leaves open.
  [[nodiscard]] virtual Result<void> SetDns(const Dns&, const std::vector<std::string>&) {
    return {};
  }
  /// The SSH host keys on its disk are somebody else's: its image's, or its source's.
  [[nodiscard]] virtual Result<void> RemoveHostKeys() { return {}; }
  /// Before a clone's processes go on: host name, machine-id, no host keys of its source.
  [[nodiscard]] virtual Result<void> TakeIdentity(const Identity& identity) {
    DORMOUSE_TRY(SetHostname(identity.hostname));
    DORMOUSE_TRY(SetMachineId(identity.machine_id));
    return RemoveHostKeys();
  }
  /// Writes every file system back. May take for ever, so it is called in a forked child of a
  /// process with threads: system calls only.
  virtual void SyncInChild() {}
  /// Ends every process, writes everything back and turns the machine off (or starts it anew).
  virtual void PowerOff(bool reboot) = 0;
  [[nodiscard]] virtual std::string BootId() = 0;
  [[nodiscard]] virtual uint64_t UptimeMs() = 0;
  [[nodiscard]] virtual std::vector<std::string> Warnings() { return {}; }
  /// Of the root disk, read anew each time.
  [[nodiscard]] virtual IdentityFiles Users() { return ReadIdentityFiles(""); }
  /// The server's state changed, and what it was when a server of this machine began: for one whose
  /// memory does not hold its server (a stand-in's), and which is restored with another.
  virtual void Remember(const ServerState&) {}
  [[nodiscard]] virtual ServerState Recall() { return {}; }
  /// A copy of the workload's output for the console; must not block.
  virtual void WriteConsole(std::string_view) {}
};

/// Takes every wish and does nothing: for stand-in guests and tests.
class NoMachine : public Machine {
 public:
  Result<void> SetHostname(const std::string&) override { return {}; }
  Result<void> SetWallTime(int64_t) override { return {}; }
  Result<void> AddEntropy(std::string_view) override { return {}; }
  void PowerOff(bool) override {}
  std::string BootId() override { return "00000000-0000-0000-0000-000000000000"; }
  uint64_t UptimeMs() override { return 0; }
};

}  // namespace dormouse::guest
