// The fake guest: what answers on the hybrid vsock socket, prints on the serial line and, when its
// knobs say so, misbehaves. Its agent is the project's own guest server; commands run on this
// machine.
//
// What the agent knows lies in the first page of its RAM, so it survives a snapshot and a restore:
// whether it is configured and frozen, its workload's state (its processes do not: it only seems to
// run), who it is. Its health answers warn "fake guest: thawed <n> times, hostname <h>, machine-id
// <m>" once the host has thawed it.
//
// Start, Freeze, Thaw and the destructor belong to one thread; the guest's own threads are inside.
#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "guest-agent/server/machine.h"
#include "guest-agent/server/server.h"
#include "src/common/base/unique_fd.h"
#include "tests/fakes/fake-cloud-hypervisor/events.h"
#include "tests/fakes/fake-cloud-hypervisor/knobs.h"
#include "tests/fakes/fake-cloud-hypervisor/memory.h"
#include "tests/fakes/fake-cloud-hypervisor/serial_port.h"

namespace dormouse::fake_vmm {

enum class GuestWish { kPoweroff, kReboot };

class Guest {
 public:
  struct Parts {
    GuestMemory* memory = nullptr;
    SerialPort* serial = nullptr;  ///< may be none
    EventMonitor* events = nullptr;
    UniqueFd vsock;  ///< listening; may be none
    Knobs knobs;
    std::function<void(GuestWish)> wish;  ///< from a thread of the guest
  };

  /// `booted`: from a kernel, with a new boot id; else woken from what is in memory. Frozen until
  /// Thaw.
  Guest(Parts parts, bool booted);
  ~Guest();
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  /// When it returns, the guest's agent answers nobody until Thaw.
  void Freeze();
  void Thaw();

 private:
  class Agent;
  using Instant = std::chrono::steady_clock::time_point;

  void Run();
  void Wake() const;
  void RunTimers(Instant now);
  [[nodiscard]] int Timeout(Instant now) const;
  void OnConnect();
  void BeHostile(UniqueFd peer);
  void Print(const std::string& line) const;

  Parts parts_;
  std::unique_ptr<Agent> machine_;
  std::unique_ptr<guest::Server> server_;
  UniqueFd wake_;

  std::mutex mutex_;
  bool stopping_ = false;
  bool frozen_ = true;
  Instant ran_since_{};
  std::chrono::nanoseconds ran_before_{0};  ///< time as the guest lived it, without pauses
  bool announced_ = false;
  bool crashed_ = false;
  bool powered_off_ = false;
  bool rebooted_ = false;
  bool panicked_ = false;

  std::thread server_thread_;
  std::thread thread_;
  std::list<std::pair<std::thread, int>> hostile_;
};

}  // namespace dormouse::fake_vmm
