// The Machine that PID 1 gives its server: the guest itself.
#pragma once

#include <string>
#include <vector>

#include "guest-agent/server/machine.h"

namespace dormouse::guest {

/// CLOCK_BOOTTIME: since the kernel started, pauses of the VM included where the host tells of
/// them.
[[nodiscard]] uint64_t UptimeMs();

class GuestMachine : public Machine {
 public:
  /// `warnings`: what went wrong on the way up and did not stop it.
  explicit GuestMachine(std::vector<std::string> warnings) : warnings_(std::move(warnings)) {}

  Result<void> SetHostname(const std::string& hostname) override;
  Result<void> SetWallTime(int64_t since_1970_ns) override;
  Result<void> AddEntropy(std::string_view bytes) override;
  Result<void> TakeIdentity(const Identity& identity) override;
  void SyncInChild() override;
  /// Does not return.
  void PowerOff(bool reboot) override;
  std::string BootId() override;
  uint64_t UptimeMs() override { return guest::UptimeMs(); }
  std::vector<std::string> Warnings() override;
  void WriteConsole(std::string_view bytes) override;

 private:
  std::vector<std::string> warnings_;
  std::vector<std::string> identity_notes_;  ///< of the last TakeIdentity
};

}  // namespace dormouse::guest
