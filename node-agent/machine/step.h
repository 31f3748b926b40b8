// The steps of a sandbox's way, and one table of what each of them is.
//
// A new step is an enumerator, a row of the table (step.cc), and a function of whoever carries it
// out. Values; thread-safe.
#pragma once

#include <chrono>
#include <string_view>

#include "src/common/api/sandbox.h"
#include "src/common/base/result.h"

namespace dormouse {

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
  kStopGuest,    ///< asked to end its workload and to power off; the VMM's exit tells the rest
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

enum class StepKind {
  kPlain,
  kCapture,  ///< of a suspend or a template: the sandbox can be made to run on after a failure
  kRestore,  ///< of a wake: the generation's files cannot be used when it fails
  kWake,     ///< what else a wake consists of, or a boot in its place
};

enum class StepOwner {
  kAgent,    ///< a save of the record and its like: nothing for the machine
  kMachine,  ///< Machine::Do
};

struct StepTraits {
  Step step;
  /// "disk.prepare": in failpoints (agent.step.before.<name>, agent.step.after.<name>), metrics and
  /// logs.
  std::string_view name;
  StepKind kind = StepKind::kPlain;
  StepOwner owner = StepOwner::kMachine;
  /// Where a capture's status shows what it took; null: nowhere.
  std::chrono::milliseconds api::CaptureStages::*took = nullptr;
};

[[nodiscard]] const StepTraits& TraitsOf(Step step);

/// The answer to a step that the one who was asked has no function for: its row names another
/// owner.
[[nodiscard]] Result<> NobodyCarriesOut(Step step);

[[nodiscard]] inline std::string_view StepName(Step step) {
  return TraitsOf(step).name;
}
[[nodiscard]] inline bool IsCapture(Step step) {
  return TraitsOf(step).kind == StepKind::kCapture;
}
[[nodiscard]] inline bool IsRestore(Step step) {
  return TraitsOf(step).kind == StepKind::kRestore;
}

}  // namespace dormouse
