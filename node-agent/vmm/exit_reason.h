// Why a VMM ended. Its exit code does not tell: it is 0 for a guest's poweroff, for vmm.shutdown,
// and for a vCPU that failed (v53.0), so what was seen of its events decides. With --no-shutdown
// (which BuildCommandLine gives) a guest that powers off makes vm/shutdown and the VMM stays until
// we end it, while a VMM that ends by itself says vm/deleted and vmm/shutdown too, if these last
// words are not lost (its event thread is not waited for). Pure; thread-safe.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "node-agent/vmm/event_monitor.h"

namespace dormouse::vmm {

enum class ExitKind {
  kGuestPoweroff,  ///< the guest shut down: ended well
  kGuestReboot,    ///< the guest rebooted or panicked, and the VMM was ended for it
  kGuestPanic,
  kSignal,    ///< killed: by the OOM killer, an admin, or a fault of its own
  kSeccomp,   ///< SIGSYS: it made a call that it must not
  kVmmError,  ///< ended by itself: startup failure, vCPU error, SIGTERM from elsewhere
};

struct ExitObservation {
  std::optional<int> wait_status{};  ///< Watch::ExitStatus
  bool oom_killed = false;           ///< the cgroup's memory.events counted an oom_kill
  std::string log_tail{};  ///< the last lines of the VMM's log: a triple fault is told there alone
};

struct ExitReason {
  ExitKind kind = ExitKind::kVmmError;
  std::string
      message;  ///< for the condition and the event: "guest powered off", "killed by SIGKILL"
  bool success = false;  ///< restartPolicy OnFailure does not restart it
};

[[nodiscard]] std::string_view ExitKindName(ExitKind kind);
/// `events`: the last of this incarnation, oldest first.
[[nodiscard]] ExitReason ExplainExit(const ExitObservation& seen, std::span<const Event> events);

}  // namespace dormouse::vmm
