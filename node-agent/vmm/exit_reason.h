// Why a VMM ended. Its exit code does not tell: it is 0 for a guest's poweroff, for vmm.shutdown, and
// for a vCPU that failed (v53.0), so what was seen of its events decides. Pure; thread-safe.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "node-agent/vmm/event_monitor.h"

namespace dormouse::vmm {

enum class ExitKind {
  kStopped,        ///< we asked for it
  kGuestPoweroff,  ///< the guest shut down: ended well
  kGuestReboot,    ///< the guest rebooted or panicked, and the VMM was ended for it
  kGuestPanic,
  kSignal,    ///< killed: by the OOM killer, an admin, or a fault of its own
  kSeccomp,   ///< SIGSYS: it made a call that it must not
  kVmmError,  ///< exited non-zero, or exited 0 without a shutdown of the guest
};

struct ExitObservation {
  std::optional<int> wait_status;  ///< as waitpid gives; absent when it was not our child (agent restarted)
  bool asked = false;              ///< we had decided that it ends
  bool oom_killed = false;         ///< the cgroup's memory.events counted an oom_kill
};

struct ExitReason {
  ExitKind kind = ExitKind::kVmmError;
  std::string message;  ///< for the condition and the event: "guest powered off", "killed by SIGKILL"
  bool success = false;  ///< restartPolicy OnFailure does not restart it
};

[[nodiscard]] std::string_view ExitKindName(ExitKind kind);
/// `events`: the last of this incarnation, oldest first.
[[nodiscard]] ExitReason ExplainExit(const ExitObservation& seen, std::span<const Event> events);

}  // namespace dormouse::vmm
