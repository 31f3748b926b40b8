#include "node-agent/vmm/exit_reason.h"

#include <sys/wait.h>

#include <csignal>
#include <cstring>

namespace dormouse::vmm {
namespace {

// What KVM_EXIT_SHUTDOWN makes the VMM log, at the level of an error (v53.0).
constexpr std::string_view kTripleFault = "triple-faulted";

struct Story {
  bool panicked = false;
  bool rebooting = false;
  bool vm_shutdown = false;   // the guest powered off, or the VMM is ending
  bool vmm_shutdown = false;  // the VMM is ending
  bool booted = false;
};

Story Tell(std::span<const Event> events) {
  Story story;
  for (const Event& event : events) {
    switch (event.kind) {
      case EventKind::kGuestPanic:
        story.panicked = true;
        break;
      case EventKind::kRebooting:
        story.rebooting = true;
        story.vm_shutdown = false;
        break;
      case EventKind::kShutdown:
        story.vm_shutdown = true;
        break;
      case EventKind::kDeleted:
      case EventKind::kVmmShutdown:
        story.vmm_shutdown = true;
        break;
      case EventKind::kBooting:
      case EventKind::kBooted:
      case EventKind::kRestored:
        story.booted = true;
        story.vm_shutdown = false;
        break;
      default:
        break;
    }
  }
  return story;
}

std::string SignalText(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return std::string("killed by ") +
         (name != nullptr ? std::string("SIG") + name : "signal " + std::to_string(signal));
}

}  // namespace

std::string_view ExitKindName(ExitKind kind) {
  switch (kind) {
    case ExitKind::kGuestPoweroff:
      return "GuestPoweroff";
    case ExitKind::kGuestReboot:
      return "GuestReboot";
    case ExitKind::kGuestPanic:
      return "GuestPanic";
    case ExitKind::kSignal:
      return "Signal";
    case ExitKind::kSeccomp:
      return "Seccomp";
    case ExitKind::kVmmError:
      return "VmmError";
  }
  return "?";
}

ExitReason ExplainExit(const ExitObservation& seen, std::span<const Event> events) {
  const Story story = Tell(events);
  // We end a VMM for what its guest did, by a signal: so the guest's story comes before the signal.
  if (story.panicked) return {ExitKind::kGuestPanic, "the guest's kernel panicked", false};
  if (story.rebooting) {
    const bool faulted = seen.log_tail.find(kTripleFault) != std::string::npos;
    return {ExitKind::kGuestReboot,
            faulted ? "a triple fault of its processor reset the guest"
                    : "the guest rebooted or its kernel panicked",
            false};
  }
  // A VMM that exited by itself was not waiting for us, even if its last events were lost.
  const bool exited = seen.wait_status && WIFEXITED(*seen.wait_status);
  if (story.vm_shutdown && !story.vmm_shutdown && !exited) {
    return {ExitKind::kGuestPoweroff, "the guest powered off", true};
  }
  if (seen.wait_status && WIFSIGNALED(*seen.wait_status)) {
    const int signal = WTERMSIG(*seen.wait_status);
    if (signal == SIGSYS) {
      return {ExitKind::kSeccomp, "the VMM made a system call that its seccomp filter forbids",
              false};
    }
    std::string text = "the VMM was " + SignalText(signal);
    if (seen.oom_killed) text += " for running out of the memory of its cgroup";
    return {ExitKind::kSignal, std::move(text), false};
  }
  if (seen.oom_killed) {
    return {ExitKind::kSignal, "the VMM was killed for running out of the memory of its cgroup",
            false};
  }
  if (exited) {
    const int code = WEXITSTATUS(*seen.wait_status);
    return {ExitKind::kVmmError,
            "the VMM exited with code " + std::to_string(code) +
                (story.booted ? " while its guest ran" : " before its guest ran"),
            false};
  }
  return {ExitKind::kVmmError,
          story.booted ? "the VMM ended while its guest ran" : "the VMM ended before its guest ran",
          false};
}

}  // namespace dormouse::vmm
