// What there is of one sandbox on this node, as Machine::Observe finds it.
//
// Values; the kernel and the process table are looked at each time, nothing here is remembered.
#pragma once

#include <optional>
#include <string>

#include "node-agent/record/record.h"

namespace dormouse {

/// What is there of a part that is made of several kernel objects.
enum class Presence {
  kAbsent,
  kPartial,
  kComplete,
};

/// A VMM as its cgroup, its process and its API tell.
enum class VmmState {
  kAbsent,    ///< no process in the cgroup
  kSilent,    ///< a process whose API does not answer: it has just been launched, or hangs
  kStarting,  ///< answers, and holds no VM yet
  kCreated,   ///< holds a VM that does not run
  kRunning,
  kPaused,
  kForeign,  ///< processes in the cgroup that are not the one of the record
};

enum class GuestState {
  kUnknown,     ///< no VM runs, or it was not asked
  kSilent,      ///< does not answer
  kViolation,   ///< answers, but not by the protocol
  kFrozen,      ///< healthy; its workload stands still for a capture, or has just been restored
  kAnswering,   ///< healthy, its identity not yet given
  kConfigured,  ///< healthy, no workload started (or none wanted)
  kWorking,     ///< its workload runs
  kWorkloadEnded,
};

/// Healthy, and its programs run.
[[nodiscard]] constexpr bool Answers(GuestState guest) {
  return guest == GuestState::kAnswering || guest == GuestState::kConfigured ||
         guest == GuestState::kWorking || guest == GuestState::kWorkloadEnded;
}

struct Observed {
  bool recorded = true;  ///< its record is on disk
  Presence disk = Presence::kAbsent;
  bool disk_lost = false;  ///< the snapshot is invalid: its store failed
  Presence net = Presence::kAbsent;
  std::string egress{};  ///< the rules in force (Machine::EgressRules); empty: none, or not asked
  bool vmm_directory = false;
  bool cgroup = false;
  VmmState vmm = VmmState::kAbsent;
  GuestState guest = GuestState::kUnknown;
  std::optional<int> workload_exit_code{};
  std::string workload_detail{};  ///< why it could not be run, as the guest says
  std::optional<Ending>
      guest_ending{};  ///< the guest ended itself (poweroff, reboot, panic), its VMM did not
  bool guest_timed_out = false;            ///< it never answered within its boot deadline
  std::optional<std::string> vmm_hangs{};  ///< why its VMM is to be ended, where that is so
  std::optional<Ending> vmm_ending{};      ///< how the incarnation ended, when its process is gone
  bool stale_files = false;  ///< generations, or parts of them, that the record does not need
};

/// Nothing of it is in the kernel or below the run directory.
[[nodiscard]] inline bool NothingLeft(const Observed& seen) {
  return seen.disk == Presence::kAbsent && seen.net == Presence::kAbsent &&
         seen.vmm == VmmState::kAbsent && !seen.cgroup && !seen.vmm_directory;
}

}  // namespace dormouse
