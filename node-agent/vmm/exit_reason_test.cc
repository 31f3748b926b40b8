#include "node-agent/vmm/exit_reason.h"

#include <gtest/gtest.h>

#include <csignal>
#include <vector>

namespace dormouse::vmm {
namespace {

constexpr int Exited(int code) {
  return code << 8;
}

Event Of(EventKind kind) {
  Event event;
  event.kind = kind;
  return event;
}

TEST(ExitReasonTest, ATripleFaultIsToldFromAReboot) {
  const std::vector<Event> reboot = {Of(EventKind::kBooted), Of(EventKind::kRebooting)};
  ExitObservation seen;
  seen.log_tail = "vmm: 1.0s: <vcpu0> WARN:vmm/src/cpu.rs:268 -- no SMT isolation";
  EXPECT_EQ(ExplainExit(seen, reboot).message, "the guest rebooted or its kernel panicked");
  seen.log_tail +=
      "\nvmm: 79.05s: <vcpu0> ERROR:hypervisor/src/kvm/mod.rs:2531 -- Guest likely triple-faulted";
  EXPECT_EQ(ExplainExit(seen, reboot).message, "a triple fault of its processor reset the guest");
  EXPECT_EQ(ExplainExit(seen, reboot).kind, ExitKind::kGuestReboot);
}

TEST(ExitReasonTest, EventsDecideWhatTheExitCodeCannot) {
  const std::vector<Event> running = {Of(EventKind::kBooting), Of(EventKind::kBooted)};
  std::vector<Event> off = running;
  off.push_back(Of(EventKind::kShutdown));
  std::vector<Event> ended = off;
  ended.push_back(Of(EventKind::kDeleted));
  ended.push_back(Of(EventKind::kVmmShutdown));
  std::vector<Event> reboot = running;
  reboot.push_back(Of(EventKind::kRebooting));
  std::vector<Event> panic = running;
  panic.push_back(Of(EventKind::kGuestPanic));
  std::vector<Event> rebooted_then_off = reboot;
  rebooted_then_off.push_back(Of(EventKind::kRebooted));

  const struct {
    const char* name;
    ExitObservation seen;
    std::vector<Event> events;
    ExitKind kind;
    bool success;
  } cases[] = {
      {"poweroff, then we ended it", {SIGKILL, false}, off, ExitKind::kGuestPoweroff, true},
      {"poweroff, not our child", {{}, false}, off, ExitKind::kGuestPoweroff, true},
      {"ended by itself, its last events lost",
       {Exited(0), false},
       off,
       ExitKind::kVmmError,
       false},
      {"reboot, then we killed it", {SIGKILL, false}, reboot, ExitKind::kGuestReboot, false},
      {"panic, then we killed it", {SIGKILL, false}, panic, ExitKind::kGuestPanic, false},
      {"killed", {SIGKILL, false}, running, ExitKind::kSignal, false},
      {"oom, not our child", {{}, true}, running, ExitKind::kSignal, false},
      {"seccomp", {SIGSYS, false}, running, ExitKind::kSeccomp, false},
      {"vCPU error or SIGTERM", {Exited(0), false}, ended, ExitKind::kVmmError, false},
      {"startup failure", {Exited(1), false}, {}, ExitKind::kVmmError, false},
      {"nothing known", {{}, false}, running, ExitKind::kVmmError, false},
      {"reboot is remembered",
       {Exited(0), false},
       rebooted_then_off,
       ExitKind::kGuestReboot,
       false},
  };
  for (const auto& c : cases) {
    const ExitReason reason = ExplainExit(c.seen, c.events);
    EXPECT_EQ(ExitKindName(reason.kind), ExitKindName(c.kind)) << c.name;
    EXPECT_EQ(reason.success, c.success) << c.name;
    EXPECT_FALSE(reason.message.empty()) << c.name;
  }
}

TEST(ExitReasonTest, TheMessageNamesTheSignalAndTheCause) {
  EXPECT_EQ(ExplainExit({SIGKILL, true}, {}).message,
            "the VMM was killed by SIGKILL for running out of the memory of its cgroup");
  EXPECT_EQ(ExplainExit({Exited(1), false}, {}).message,
            "the VMM exited with code 1 before its guest ran");
}

}  // namespace
}  // namespace dormouse::vmm
