// The Machine that PID 1 gives its server: the guest itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "guest-agent/init/own_files.h"
#include "guest-agent/server/machine.h"

namespace dormouse::guest {

/// CLOCK_BOOTTIME: since the kernel started, pauses of the VM included where the host tells of
/// them.
[[nodiscard]] uint64_t UptimeMs();

class GuestMachine : public Machine {
 public:
  /// `files`: where there are none, the image's own stay. `address`: IPv4 in network byte order, 0
  /// without a network. `warnings`: what went wrong on the way up and did not stop it.
  GuestMachine(std::optional<OwnFiles> files, uint32_t address, std::vector<std::string> warnings);

  Result<void> SetHostname(const std::string& hostname) override;
  Result<void> SetWallTime(int64_t since_1970_ns) override;
  Result<void> AddEntropy(std::string_view bytes) override;
  Result<void> SetMachineId(const std::string& machine_id) override;
  Result<void> SetDns(const Dns& asked, const std::vector<std::string>& resolvers) override;
  Result<void> RemoveHostKeys() override;
  Result<void> TakeIdentity(const Identity& identity) override;
  void SyncInChild() override;
  /// Does not return.
  void PowerOff(bool reboot) override;
  /// The kernel's own; programs see another one, see SetMachineId.
  std::string BootId() override { return boot_id_; }
  uint64_t UptimeMs() override { return guest::UptimeMs(); }
  std::vector<std::string> Warnings() override;
  void WriteConsole(std::string_view bytes) override;

 private:
  Result<void> Put(const std::string& path, std::string_view text);

  std::optional<OwnFiles> files_;
  const uint32_t address_;
  const std::string boot_id_;
  std::string machine_id_;  ///< as last set
  std::vector<std::string> warnings_;
  std::vector<std::string> identity_notes_;  ///< since the last TakeIdentity
};

}  // namespace dormouse::guest
