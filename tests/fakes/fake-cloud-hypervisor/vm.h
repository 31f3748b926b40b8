// The VM behind the API: v53.0's states and what each call does in them (vmm/src/lib.rs, vm.rs).
// Not thread-safe: the main loop's.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "tests/fakes/fake-cloud-hypervisor/answer.h"
#include "tests/fakes/fake-cloud-hypervisor/devices.h"
#include "tests/fakes/fake-cloud-hypervisor/events.h"
#include "tests/fakes/fake-cloud-hypervisor/guest.h"
#include "tests/fakes/fake-cloud-hypervisor/memory.h"
#include "tests/fakes/fake-cloud-hypervisor/serial_port.h"
#include "tests/fakes/fake-cloud-hypervisor/snapshot_files.h"

namespace dormouse::fake_vmm {

enum class State { kCreated, kRunning, kPaused };

class Vm {
 public:
  /// `wish`: called from a thread of the guest.
  Vm(EventMonitor* events, std::function<void(GuestWish)> wish);
  ~Vm();

  // The API's calls; refusals without "Error from API" and the call's own line.
  Outcome<> Create(const nlohmann::json& config);
  Outcome<> Boot();
  Outcome<> Pause();
  Outcome<> Resume();
  Outcome<> Shutdown();
  Outcome<> Delete();
  /// What a guest's reboot does too: the VM goes and is booted again from its config.
  Outcome<> Reboot();
  [[nodiscard]] Outcome<std::string> Info() const;
  [[nodiscard]] Outcome<std::string> Counters() const;
  Outcome<> Snapshot(const std::string& url);
  Outcome<> Restore(const std::string& url, bool prefault, const std::string& mode, bool resume);
  /// vm.power-button and vm.nmi: taken while a VM is there, and nothing comes of it.
  [[nodiscard]] Outcome<> Poke() const;

  /// How the VM's knobs want the API to hang, now.
  [[nodiscard]] ApiHang Hang() const;

  [[nodiscard]] bool exists() const { return machine_ != nullptr; }
  [[nodiscard]] bool has_config() const { return config_ != nullptr; }

 private:
  struct Machine {
    State state = State::kCreated;
    std::optional<Devices> devices;
    std::unique_ptr<GuestMemory> memory;
    std::unique_ptr<Guest> guest;
  };

  Outcome<> OpenConsole();
  Outcome<> BuildAndBoot();
  Outcome<> RestoreMachine(const std::string& directory);
  void StartGuest(Machine& machine, bool booted);
  void Stop();

  EventMonitor* const events_;
  const std::function<void(GuestWish)> wish_;
  std::unique_ptr<nlohmann::json> config_;
  std::unique_ptr<SerialPort> serial_;
  std::unique_ptr<Machine> machine_;
  bool rebooted_ = false;
};

}  // namespace dormouse::fake_vmm
