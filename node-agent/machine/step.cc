#include "node-agent/machine/step.h"

#include <algorithm>
#include <iterator>
#include <string>

namespace dormouse {
namespace {

// In the order of the enumeration: TraitsOf looks a step up by its number.
constexpr StepTraits kSteps[] = {
    {Step::kSaveIntent, "record.save", StepKind::kPlain, StepOwner::kAgent},
    {Step::kMakeStore, "disk.store"},
    {Step::kPrepareDisk, "disk.prepare"},
    {Step::kPrepareNet, "net.prepare"},
    {Step::kPrepareVmm, "vmm.prepare"},
    {Step::kLaunchVmm, "vmm.launch"},
    {Step::kSaveVmm, "record.vmm", StepKind::kPlain, StepOwner::kAgent},
    {Step::kCreateVm, "vmm.create"},
    {Step::kBootVm, "vmm.boot"},
    {Step::kResumeVm, "vmm.resume"},
    {Step::kPauseVm, "vmm.pause", StepKind::kCapture, StepOwner::kMachine,
     &api::CaptureStages::pause},
    {Step::kConfigureGuest, "guest.configure"},
    {Step::kStartWorkload, "guest.start"},
    {Step::kStopGuest, "guest.stop"},
    {Step::kKillVmm, "vmm.kill"},
    {Step::kReleaseDisk, "disk.release"},
    {Step::kRemoveNet, "net.remove"},
    {Step::kRemoveVmm, "vmm.remove"},
    {Step::kRemoveFiles, "files.remove"},
    {Step::kPrepareCapture, "capture.prepare", StepKind::kCapture, StepOwner::kMachine,
     &api::CaptureStages::prepare},
    {Step::kFreezeGuest, "guest.freeze", StepKind::kCapture, StepOwner::kMachine,
     &api::CaptureStages::freeze},
    {Step::kCaptureState, "capture.state", StepKind::kCapture, StepOwner::kMachine,
     &api::CaptureStages::state},
    {Step::kCaptureMemory, "capture.memory", StepKind::kCapture, StepOwner::kMachine,
     &api::CaptureStages::memory},
    {Step::kCaptureDisk, "capture.disk", StepKind::kCapture, StepOwner::kMachine,
     &api::CaptureStages::disk},
    {Step::kSyncCapture, "capture.sync", StepKind::kCapture, StepOwner::kMachine,
     &api::CaptureStages::sync},
    {Step::kCommitSuspend, "record.suspended", StepKind::kCapture, StepOwner::kAgent},
    {Step::kCopyGeneration, "capture.copy", StepKind::kCapture},
    {Step::kCommitTemplate, "template.commit", StepKind::kCapture, StepOwner::kAgent},
    {Step::kRestoreStore, "disk.restore", StepKind::kRestore},
    {Step::kRestoreVm, "vmm.restore", StepKind::kRestore},
    {Step::kThawGuest, "guest.thaw", StepKind::kWake},
    {Step::kCommitWake, "record.awake", StepKind::kWake, StepOwner::kAgent},
    {Step::kTakeStore, "disk.take", StepKind::kWake},
    {Step::kForgetMemory, "record.disk-only", StepKind::kWake, StepOwner::kAgent},
    {Step::kPruneFiles, "files.prune"},
};

constexpr bool InOrder() {
  for (size_t i = 0; i < std::size(kSteps); ++i) {
    if (static_cast<size_t>(kSteps[i].step) != i) return false;
  }
  return std::size(kSteps) == static_cast<size_t>(Step::kPruneFiles) + 1;
}
static_assert(InOrder());

}  // namespace

const StepTraits& TraitsOf(Step step) {
  return kSteps[static_cast<size_t>(step)];
}

Result<> NobodyCarriesOut(Step step) {
  return Fail(ErrorCode::kInternal, "nobody carries out " + std::string(StepName(step)));
}

}  // namespace dormouse
