// What to do next for one sandbox, from what is wanted and what there is. The agent's one decision.
//
// A pure function of values: no clock, no kernel, no I/O; tested by tables and golden text. The
// engine carries a plan out, observes again and asks again, so recovery after a crash is not a path
// of its own: an observation of half-made things gives the plan that completes, or unmakes, them.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/sandbox/record.h"
#include "src/common/api/sandbox.h"
#include "src/common/base/clock.h"

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
  kStarting,  ///< a process, whose API does not answer yet or holds no VM
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
  bool vmm_directory = false;
  bool cgroup = false;
  VmmState vmm = VmmState::kAbsent;
  GuestState guest = GuestState::kUnknown;
  std::optional<int> workload_exit_code{};
  std::optional<Ending>
      guest_ending{};  ///< the guest ended itself (poweroff, reboot, panic), its VMM did not
  bool guest_timed_out = false;        ///< it never answered within its boot deadline
  std::optional<Ending> vmm_ending{};  ///< how the incarnation ended, when its process is gone
  bool stale_files = false;  ///< generations, or parts of them, that the record does not need
};

struct Desired {
  bool deleting = false;  ///< deletionTimestamp is set
  api::OperatingMode mode = api::OperatingMode::kRunning;
  api::RestartPolicy restart_policy = api::RestartPolicy::kNever;
  bool has_workload = false;
  bool node_disk_full = false;  ///< the node must stop what writes
  bool no_room = false;         ///< the node's memory is given to others: no wake now
  bool no_turn = false;         ///< others are waking: one that has not begun waits
  /// A template that is to be captured from this sandbox, or the boot snapshot of its shape.
  std::optional<TemplateCapture> capture_for{};
  bool hold_suspend = false;    ///< the last capture failed: run on for a while before the next
  bool boot_from_disk = false;  ///< the annotation: rather without its memory than not at all
  bool wake_failed = false;     ///< of this generation, since the agent started
  bool thawed = false;          ///< this VM's guest was, since its restore and by this agent
  std::optional<std::string> thaw_failed{};  ///< why its last thaw did
  bool thaw_refused = false;                 ///< and each other would
  int64_t generation = 0;                    ///< of the object: a wish that is new has another
};

enum class Step {
  kSaveIntent,  ///< record: what is about to be true
  kMakeStore,   ///< in the sandbox's directory, which is nobody's until its record is there
  kPrepareDisk,
  kPrepareNet,
  kPrepareVmm,  ///< the VMM's directory and cgroup
  kLaunchVmm,
  kSaveVmm,  ///< record: which process it is; until then a VMM is nobody's, and goes with its agent
  kCreateVm,
  kBootVm,
  kResumeVm,
  kPauseVm,
  kConfigureGuest,
  kStartWorkload,
  kKillVmm,      ///< and see its cgroup empty
  kReleaseDisk,  ///< devices go, the store stays
  kRemoveNet,
  kRemoveVmm,    ///< cgroup and directory
  kRemoveFiles,  ///< store, console, record: the sandbox's directory

  // Suspend. Until kCommitSuspend the sandbox runs, or can be made to run on.
  kPrepareCapture,  ///< the generation's directory, and in it the memory file that RAM is mapped
                    ///< from, or a clone of that
  kFreezeGuest,
  kCaptureState,   ///< the devices' and vCPUs' state, by the VMM
  kCaptureMemory,  ///< the pages that have diverged
  kCaptureDisk,    ///< the store, flushed and cloned
  kSyncCapture,    ///< the manifest; all of it is on disk
  kCommitSuspend,  ///< record: asleep. The one commit point
  // A template: the same steps into its directory, and a commit of its own. The sandbox then goes
  // on.
  kCopyGeneration,  ///< of one that sleeps: its files, copied
  kCommitTemplate,
  // Wake. Until kCommitWake it can be tried again from the same generation.
  kRestoreStore,  ///< the store that the guest will write: a clone of the generation's
  kRestoreVm,
  kThawGuest,
  kCommitWake,  ///< record: runs; the generation is consumed
  // Where its memory cannot be used, and its user says so: a boot from its disk.
  kTakeStore,     ///< the generation's store becomes the sandbox's, unless nothing could boot it
  kForgetMemory,  ///< record: has a disk and no memory. The one commit point
  kPruneFiles,    ///< what no record needs of generations
};
/// "disk.prepare": the step's name in failpoints (agent.step.before.<name>,
/// agent.step.after.<name>), metrics and logs.
[[nodiscard]] std::string_view StepName(Step step);

/// Steps of one stage touch different parts and run side by side; stages run one after the other.
using Stage = std::vector<Step>;

/// Where the sandbox stands when the stages have been done (or there are none).
enum class Outcome {
  kProceed,     ///< more stages will follow: observe and plan again
  kAwaitGuest,  ///< look again soon, until the boot deadline
  kRunning,     ///< as wanted; look again now and then
  kBackOff,     ///< restart when Plan::at has come
  kSuspending,  ///< being captured; only ever told, never planned
  kSuspended,   ///< asleep
  kNoRoom,      ///< asleep, and wanted awake: the node has no memory for it
  kInLine,      ///< wakes, or starts as a clone, when others have woken
  kStopped,     ///< ended for good: the files are kept
  kPaused,      ///< stands still for lack of disk
  kReleased,    ///< nothing is left
  kFailed,      ///< cannot be what is wanted (Plan::ending says why); nothing is destroyed
};

struct Plan {
  std::vector<Stage> stages;
  Outcome outcome = Outcome::kProceed;
  /// The record as kSaveIntent writes it; equal to the one given when nothing of it changes.
  Record record;
  std::optional<WallTime> at;
  /// It starts a VMM, and nothing stands around one yet: one that was launched ahead can be taken,
  /// before the first stage, which saves the record.
  bool from_nothing = false;

  /// "save-intent | disk.prepare net.prepare vmm.prepare | vmm.launch -> Proceed", for golden tests
  /// and ctl.
  [[nodiscard]] std::string ToString() const;
};

struct PlanLimits {
  std::chrono::seconds restart_base{10};  ///< back-off: base * 2^n ...
  std::chrono::seconds restart_cap{300};  ///< ... but no more than this
  std::chrono::minutes restart_reset{
      10};  ///< an incarnation that ran for so long starts the count of delays anew
};

[[nodiscard]] Plan MakePlan(const Record& record, const Desired& desired, const Observed& observed,
                            WallTime now, const PlanLimits& limits = {});

/// Whether the memory that it sleeps with is given up for a boot from its disk: only where a wake
/// of it has failed, and its user has asked for it since it fell asleep. A boot snapshot is none of
/// its own, and goes without being asked.
[[nodiscard]] bool GivesUpMemory(const Record& record, const Desired& desired);
/// Whether the wake that is wanted is one that the guest has refused already.
[[nodiscard]] bool IsRefused(const Record& record, const Desired& desired);

/// Whether an ending is followed by another incarnation.
[[nodiscard]] bool ShouldRestart(api::RestartPolicy policy, const Ending& ending);
/// The wait before the restart that follows `restart_count` earlier ones: 0 for the first.
[[nodiscard]] std::chrono::seconds RestartDelay(int restart_count, const PlanLimits& limits);

}  // namespace dormouse
