#include "node-agent/sandbox/plan.h"

#include <algorithm>

#include "src/common/api/reasons.h"

namespace dormouse {
namespace {

bool HasVm(VmmState state) {
  return state != VmmState::kAbsent;
}

// The VMM's exit is seen before its disk goes, and its cgroup is empty before that (invariant 6).
void AppendTeardown(const Observed& seen, std::vector<Stage>* stages) {
  if (HasVm(seen.vmm)) stages->push_back({Step::kKillVmm});
  Stage release;
  if (seen.disk != Presence::kAbsent) release.push_back(Step::kReleaseDisk);
  if (seen.net != Presence::kAbsent) release.push_back(Step::kRemoveNet);
  if (seen.cgroup || seen.vmm_directory) release.push_back(Step::kRemoveVmm);
  if (!release.empty()) stages->push_back(std::move(release));
}

Plan PlanRelease(Plan plan, const Observed& seen) {
  if (plan.record.intent != Intent::kRelease) {
    plan.record.intent = Intent::kRelease;
    plan.stages.push_back({Step::kSaveIntent});
  }
  AppendTeardown(seen, &plan.stages);
  plan.stages.push_back({Step::kRemoveFiles});
  plan.outcome = Outcome::kReleased;
  return plan;
}

Plan PlanAsleep(Plan plan, const Observed& seen, Outcome outcome) {
  if (plan.record.intent != Intent::kSuspended) {
    plan.record.intent = Intent::kSuspended;
    plan.stages.push_back({Step::kSaveIntent});
  }
  plan.record.vmm.reset();
  AppendTeardown(seen, &plan.stages);
  if (seen.stale_files) plan.stages.push_back({Step::kPruneFiles});
  plan.outcome = outcome;
  return plan;
}

// Frozen, paused and written: what comes after it decides whose capture it was.
void AppendCapture(const Observed& seen, std::vector<Stage>* stages) {
  stages->push_back({Step::kSaveIntent});
  stages->push_back({Step::kPrepareCapture});
  // Killed in the middle of it, an agent finds the VM paused: what is to be captured stands still
  // already.
  if (seen.vmm == VmmState::kRunning) {
    stages->push_back({Step::kFreezeGuest});
    stages->push_back({Step::kPauseVm});
  }
  stages->push_back({Step::kCaptureState});
  stages->push_back({Step::kCaptureMemory, Step::kCaptureDisk});
  stages->push_back({Step::kSyncCapture});
}

// The next round finds the VM paused and its guest frozen, and lets them go on.
Plan PlanTemplate(Plan plan, const Desired& desired, const Observed& seen) {
  plan.record.capture_for = desired.capture_for;
  AppendCapture(seen, &plan.stages);
  plan.stages.push_back({Step::kCommitTemplate});
  return plan;
}

Plan PlanTemplateOfAsleep(Plan plan, const Desired& desired) {
  plan.record.capture_for = desired.capture_for;
  plan.stages = {{Step::kSaveIntent}, {Step::kCopyGeneration}, {Step::kCommitTemplate}};
  return plan;
}

// A boot snapshot that does not wake costs nothing but time: the disk that was made of it is as
// after a power cut before the sandbox's first own instruction.
Plan PlanPlainBoot(Plan plan, const Observed& seen) {
  plan.record.BootInstead();
  plan.stages.push_back({Step::kSaveIntent});
  if (HasVm(seen.vmm)) plan.stages.push_back({Step::kKillVmm});
  return plan;
}

// The VM of a wake is gone, or its guest never answered: its generation is as it was.
Plan PlanWakeFailed(Plan plan, const Observed& seen, const std::string& why, WallTime now,
                    const PlanLimits& limits) {
  Record& record = plan.record;
  if (record.IsCloning() && record.origin->boot_snapshot)
    return PlanPlainBoot(std::move(plan), seen);
  record.ending = Ending{std::string(api::reasons::kResumeFailed), why, false, std::nullopt, now};
  record.not_before = now + RestartDelay(++record.wake_attempts, limits);
  plan = PlanAsleep(std::move(plan), seen, Outcome::kBackOff);
  plan.at = plan.record.not_before;
  return plan;
}

// Another try would end the same, and let programs that were captured as they ran go on once more
// as somebody whom they must not be. What they have written is in a copy of the generation's store,
// which goes: the generation is as it was.
Plan PlanWakeRefused(Plan plan, const Desired& desired, const Observed& seen, WallTime now) {
  plan.record.ending = Ending{std::string(api::reasons::kResumeFailed), *desired.thaw_failed, false,
                              std::nullopt, now};
  ++plan.record.wake_attempts;
  plan.record.wake_refused = desired.generation;
  Observed left = seen;
  left.stale_files = true;
  return PlanAsleep(std::move(plan), left, Outcome::kFailed);
}

// Nothing has run on the generation's disk since it was captured, and nothing runs on it before the
// record has forgotten the memory: until then a wake finds it whole.
Plan PlanDiskOnly(Plan plan, const Observed& seen) {
  if (HasVm(seen.vmm)) plan.stages.push_back({Step::kKillVmm});
  if (seen.disk != Presence::kAbsent) plan.stages.push_back({Step::kReleaseDisk});
  plan.stages.push_back({Step::kTakeStore});
  plan.stages.push_back({Step::kForgetMemory});
  plan.stages.push_back({Step::kPruneFiles});
  return plan;
}

// The whole way down. Only the commit changes what the record says.
Plan PlanSuspend(Plan plan, const Desired& desired, const Observed& seen) {
  ++plan.record.generations;
  plan.record.disk_boot_spent = desired.boot_from_disk;
  AppendCapture(seen, &plan.stages);
  plan.stages.push_back({Step::kCommitSuspend});
  AppendTeardown(seen, &plan.stages);
  plan.stages.push_back({Step::kPruneFiles});
  plan.outcome = Outcome::kSuspended;
  return plan;
}

Plan PlanStopped(Plan plan, const Observed& seen) {
  AppendTeardown(seen, &plan.stages);
  plan.outcome = Outcome::kStopped;
  return plan;
}

// Nothing of it runs, and nothing is to: its mode is Stopped, or it is being started again.
Plan PlanPoweredOff(Plan plan, const Desired& desired, const Observed& seen, WallTime now) {
  Record& record = plan.record;
  record.ForgetRun();
  record.not_before.reset();
  record.ending.reset();
  plan.stages.push_back({Step::kSaveIntent});
  if (desired.mode == api::OperatingMode::kRunning) {
    // Its disk and network stay: the next incarnation finds them complete.
    record.restarted_at = desired.restarted_at;
    ++record.restart_count;
    if (HasVm(seen.vmm)) plan.stages.push_back({Step::kKillVmm});
    return plan;
  }
  record.intent = Intent::kStopped;
  record.stopped = true;
  record.ending = Ending{std::string(api::reasons::kStopped),
                         "powered off, as operatingMode asks for; its disk is kept", true,
                         seen.workload_exit_code, now};
  return PlanStopped(std::move(plan), seen);
}

// Its workload gets its signal and its grace. Who cannot be asked is not waited for.
Plan PlanStopping(Plan plan, const Desired& desired, const Observed& seen) {
  if (seen.guest == GuestState::kFrozen && !desired.stop_asked) {
    // A capture did not come to its end: nothing that is frozen can end by itself.
    plan.stages.push_back({Step::kThawGuest});
    return plan;
  }
  if (!desired.stop_asked) plan.stages.push_back({Step::kStopGuest});
  plan.outcome = Outcome::kStopping;
  return plan;
}

bool MayStopByItself(const Record& record, const Desired& desired, const Observed& seen) {
  const bool reachable = seen.vmm == VmmState::kRunning && !seen.guest_ending && !seen.disk_lost &&
                         (Answers(seen.guest) || seen.guest == GuestState::kFrozen ||
                          desired.stop_asked || record.started_at);
  return reachable && !desired.stop_overdue && desired.grace.count() > 0;
}

Plan PlanStop(Plan plan, const Desired& desired, const Observed& seen, WallTime now) {
  if (plan.record.sleeping && !plan.record.IsCloning()) return PlanDiskOnly(std::move(plan), seen);
  return !plan.record.sleeping && MayStopByItself(plan.record, desired, seen)
             ? PlanStopping(std::move(plan), desired, seen)
             : PlanPoweredOff(std::move(plan), desired, seen, now);
}

// An incarnation has ended: another one follows by the policy, or the sandbox is finished.
Plan PlanEnded(Plan plan, const Desired& desired, const Observed& seen, Ending ending, WallTime now,
               const PlanLimits& limits) {
  Record& record = plan.record;
  record.ending = std::move(ending);
  record.vmm.reset();
  record.memory_generation.reset();
  if (!ShouldRestart(desired.restart_policy, *record.ending)) {
    record.intent = Intent::kStopped;
    plan.stages.push_back({Step::kSaveIntent});
    return PlanStopped(std::move(plan), seen);
  }
  const bool ran_long = record.started_at && now - *record.started_at >= limits.restart_reset;
  record.not_before = now + RestartDelay(ran_long ? 0 : record.restart_count, limits);
  ++record.restart_count;
  record.started_at.reset();
  record.boot_to_ready_ms.reset();
  plan.stages.push_back({Step::kSaveIntent});
  // The disk and the network stay: the next incarnation finds them complete.
  if (HasVm(seen.vmm)) plan.stages.push_back({Step::kKillVmm});
  plan.outcome = Outcome::kBackOff;
  plan.at = record.not_before;
  return plan;
}

// It would answer the same after each restart. A template's clone keeps what it starts from.
Plan PlanGuestRefuses(Plan plan, Desired desired, const Observed& seen, WallTime now,
                      const PlanLimits& limits) {
  if (plan.record.IsCloning() && plan.record.origin->boot_snapshot) plan.record.BootInstead();
  desired.restart_policy = api::RestartPolicy::kNever;
  return PlanEnded(std::move(plan), desired, seen,
                   Ending{std::string(api::reasons::kInvalidSpec), *desired.guest_refuses, false,
                          std::nullopt, now},
                   now, limits);
}

// Its VMM is at fault, not the guest: it is started again whatever the restart policy says. Its
// memory is lost, but for one that was being woken.
Plan PlanHung(Plan plan, Desired desired, const Observed& seen, WallTime now,
              const PlanLimits& limits) {
  if (plan.record.sleeping)
    return PlanWakeFailed(std::move(plan), seen, *seen.vmm_hangs, now, limits);
  desired.restart_policy = api::RestartPolicy::kAlways;
  return PlanEnded(
      std::move(plan), desired, seen,
      Ending{std::string(api::reasons::kVmmHung), *seen.vmm_hangs, false, std::nullopt, now}, now,
      limits);
}

// Up to a VM that runs. Everything before the launch is side by side: the VMM needs all of it.
Plan PlanStart(Plan plan, const Desired& desired, const Observed& seen, WallTime now) {
  Record& record = plan.record;
  // First, as a start may need their room. None of them is the record's, on disk as here: what the
  // agent before forgot, and died before it removed it.
  if (seen.stale_files) plan.stages.push_back({Step::kPruneFiles});
  if (record.not_before && now < *record.not_before) {
    plan.outcome = Outcome::kBackOff;
    plan.at = record.not_before;
    return plan;
  }
  const bool waking = record.sleeping.has_value();
  const bool anew = seen.vmm == VmmState::kAbsent || seen.vmm == VmmState::kForeign;
  if (waking && anew && desired.no_turn) {
    // Its record keeps its slot, and the template that it is cloned from.
    if (!seen.recorded) plan.stages.push_back({Step::kSaveIntent});
    plan.outcome = Outcome::kInLine;
    return plan;
  }
  if (waking && anew) {
    // A wake that was cut short may have let the guest write: each begins with the generation's own
    // store.
    if (seen.vmm == VmmState::kForeign) plan.stages.push_back({Step::kKillVmm});
    if (seen.disk != Presence::kAbsent) plan.stages.push_back({Step::kReleaseDisk});
    plan.stages.push_back({Step::kRestoreStore});
  }
  Stage prepare;
  if (seen.disk != Presence::kComplete || (waking && anew)) prepare.push_back(Step::kPrepareDisk);
  if (seen.net != Presence::kComplete) prepare.push_back(Step::kPrepareNet);
  if (!seen.cgroup || !seen.vmm_directory) prepare.push_back(Step::kPrepareVmm);
  if (!prepare.empty()) plan.stages.push_back(std::move(prepare));
  switch (seen.vmm) {
    case VmmState::kForeign:
      if (!waking) plan.stages.push_back({Step::kKillVmm});
      [[fallthrough]];
    case VmmState::kAbsent:
      ++record.incarnation;
      record.vmm.reset();
      record.not_before.reset();
      record.intent = Intent::kRun;
      plan.stages.insert(plan.stages.begin(), Stage{Step::kSaveIntent});
      if (seen.disk == Presence::kAbsent && !waking && !seen.stale_files)
        plan.stages.front().push_back(Step::kMakeStore);
      plan.stages.push_back({Step::kLaunchVmm});
      [[fallthrough]];
    case VmmState::kStarting:
      plan.stages.push_back({waking ? Step::kRestoreVm : Step::kCreateVm});
      if (anew) plan.stages.back().push_back(Step::kSaveVmm);
      if (waking) break;
      [[fallthrough]];
    case VmmState::kCreated:
      plan.stages.push_back({Step::kBootVm});
      break;
    case VmmState::kSilent:
    case VmmState::kPaused:
    case VmmState::kRunning:
      break;
  }
  plan.outcome = Outcome::kAwaitGuest;
  return plan;
}

// It has ended or was stopped, and a start of it is asked for.
Plan PlanStartAgain(Plan plan, const Desired& desired, const Observed& seen, WallTime now) {
  if (HasVm(seen.vmm)) {
    plan = PlanStopped(std::move(plan), seen);
    plan.outcome = Outcome::kProceed;
    return plan;
  }
  if (desired.no_room) {
    plan = PlanStopped(std::move(plan), seen);
    plan.outcome = Outcome::kNoRoom;
    return plan;
  }
  Record& record = plan.record;
  if (!record.stopped) ++record.restart_count;
  record.stopped = false;
  record.restarted_at = desired.restarted_at;
  record.ForgetRun();
  record.ending.reset();
  record.not_before.reset();
  return PlanStart(std::move(plan), desired, seen, now);
}

// `plan.record` says running when the stages are done, and not before: until then the generation is
// whole.
Plan PlanAwake(Plan plan) {
  plan.stages.push_back({Step::kCommitWake});
  plan.stages.push_back({Step::kPruneFiles});
  plan.outcome = Outcome::kRunning;
  return plan;
}

Plan PlanGuest(Plan plan, const Desired& desired, const Observed& seen) {
  const bool cloning = plan.record.IsCloning();
  const bool waking = plan.record.sleeping && !cloning;
  if (seen.guest == GuestState::kFrozen) {
    // Restored, or the capture that it was frozen for did not come to its end.
    plan.stages.push_back({Step::kThawGuest});
    return waking ? PlanAwake(std::move(plan)) : plan;
  }
  if (!Answers(seen.guest)) {
    plan.outcome = Outcome::kAwaitGuest;
    return plan;
  }
  if (plan.record.sleeping && !desired.thawed) {
    // Captured as it ran: it gets a clock and random numbers of its own all the same, and refuses
    // to become another. Once more does no harm, after an agent that died.
    plan.stages.push_back({Step::kThawGuest});
    return plan;
  }
  const bool configured = seen.guest != GuestState::kAnswering;
  const bool started = configured && seen.guest != GuestState::kConfigured;
  // A clone's guest was configured as another sandbox.
  if (!configured || cloning) plan.stages.push_back({Step::kConfigureGuest});
  if (!started && desired.has_workload && !waking) plan.stages.push_back({Step::kStartWorkload});
  if (plan.record.sleeping) return PlanAwake(std::move(plan));
  if (seen.stale_files) plan.stages.push_back({Step::kPruneFiles});
  plan.outcome = Outcome::kRunning;
  return plan;
}

Ending WorkloadEnding(const Desired& desired, const Observed& seen, WallTime now) {
  const int code = seen.workload_exit_code.value_or(-1);
  Ending ending{std::string(api::reasons::kWorkloadFailed),
                "the workload ended with exit code " + std::to_string(code), code == 0, code, now};
  if (!seen.workload_detail.empty()) ending.message += ": " + seen.workload_detail;
  if (ending.success) {
    ending.reason = ShouldRestart(desired.restart_policy, ending) ? api::reasons::kWorkloadEnded
                                                                  : api::reasons::kCompleted;
  }
  return ending;
}

Plan PlanRun(Plan plan, const Desired& desired, const Observed& seen, WallTime now,
             const PlanLimits& limits) {
  if (seen.disk_lost) {
    // Data that can no longer be read is still not ours to delete: stop, say so, keep the files.
    return PlanEnded(std::move(plan), Desired{.restart_policy = api::RestartPolicy::kNever}, seen,
                     Ending{std::string(api::reasons::kCowExhausted),
                            "the disk's store failed a write and is lost; its files are kept",
                            false, std::nullopt, now},
                     now, limits);
  }
  const bool waking = plan.record.sleeping.has_value();
  const bool restart = !waking && desired.mode == api::OperatingMode::kRunning &&
                       desired.restarted_at > plan.record.restarted_at;
  // A guest that powers off cannot be called back: another wish comes after it.
  const bool powers_off = desired.stop_asked && plan.record.vmm;
  if (desired.mode == api::OperatingMode::kStopped || restart || powers_off)
    return PlanStop(std::move(plan), desired, seen, now);
  if (waking && desired.mode == api::OperatingMode::kSuspended) {
    return PlanAsleep(std::move(plan), seen, Outcome::kSuspended);
  }
  if (GivesUpMemory(plan.record, desired)) return PlanDiskOnly(std::move(plan), seen);
  if (waking && desired.thaw_refused) return PlanWakeRefused(std::move(plan), desired, seen, now);
  if (desired.guest_refuses) return PlanGuestRefuses(std::move(plan), desired, seen, now, limits);
  if (seen.vmm_hangs && HasVm(seen.vmm))
    return PlanHung(std::move(plan), desired, seen, now, limits);
  if (seen.vmm == VmmState::kSilent) {
    // Nothing can be asked of it, and its guest may run.
    plan.outcome = Outcome::kAwaitGuest;
    return plan;
  }
  if (seen.vmm_ending && seen.vmm == VmmState::kAbsent && plan.record.vmm) {
    if (waking) return PlanWakeFailed(std::move(plan), seen, seen.vmm_ending->message, now, limits);
    return PlanEnded(std::move(plan), desired, seen, *seen.vmm_ending, now, limits);
  }
  if (seen.guest_ending && waking) {
    return PlanWakeFailed(std::move(plan), seen, seen.guest_ending->message, now, limits);
  }
  if (seen.guest_timed_out && waking) {
    // A frozen one has answered: what it was asked for failed each time.
    const bool frozen = seen.guest == GuestState::kFrozen && desired.thaw_failed;
    return PlanWakeFailed(std::move(plan), seen,
                          frozen ? *desired.thaw_failed : "the guest did not answer after its wake",
                          now, limits);
  }
  if (seen.guest_ending)
    return PlanEnded(std::move(plan), desired, seen, *seen.guest_ending, now, limits);
  if (seen.guest_timed_out) {
    return PlanEnded(
        std::move(plan), desired, seen,
        Ending{std::string(api::reasons::kGuestAgentTimeout),
               "the guest did not answer within its boot deadline", false, std::nullopt, now},
        now, limits);
  }
  // A workload that ended in the moment of its wake is awake first, and then has ended.
  if (seen.guest == GuestState::kWorkloadEnded && !waking) {
    return PlanEnded(std::move(plan), desired, seen, WorkloadEnding(desired, seen, now), now,
                     limits);
  }
  const bool whole = seen.disk == Presence::kComplete && seen.net == Presence::kComplete &&
                     seen.cgroup && seen.vmm_directory;
  const bool suspend = desired.mode == api::OperatingMode::kSuspended && !desired.hold_suspend;
  const bool capture = desired.capture_for && !waking && !suspend && !desired.node_disk_full;
  if (suspend && whole && seen.vmm == VmmState::kPaused)
    return PlanSuspend(std::move(plan), desired, seen);
  if (suspend && seen.vmm != VmmState::kRunning && seen.vmm != VmmState::kPaused) {
    // Nothing runs whose memory could be kept.
    return PlanAsleep(std::move(plan), seen, Outcome::kSuspended);
  }
  if (seen.vmm == VmmState::kPaused && whole) {
    if (desired.node_disk_full && !waking) {
      plan.outcome = Outcome::kPaused;
    } else {
      plan.stages.push_back({Step::kResumeVm});
    }
    return plan;
  }
  if (seen.vmm == VmmState::kRunning && whole) {
    if (desired.node_disk_full) {
      plan.stages.push_back({Step::kPauseVm});
      plan.outcome = Outcome::kPaused;
      return plan;
    }
    const bool settled = seen.guest == GuestState::kConfigured ||
                         seen.guest == GuestState::kWorking || seen.guest == GuestState::kFrozen;
    // What was asked to be started before is started first: a capture holds what the user wanted to
    // run.
    const bool started =
        settled && !(seen.guest == GuestState::kConfigured && desired.has_workload);
    if (suspend && started) return PlanSuspend(std::move(plan), desired, seen);
    // A boot snapshot holds nothing of its tenant: it is taken before the guest is told a thing.
    const bool due =
        capture &&
        (desired.capture_for->boot_snapshot ? seen.guest == GuestState::kAnswering : started);
    if (due) return PlanTemplate(std::move(plan), desired, seen);
    return PlanGuest(std::move(plan), desired, seen);
  }
  return PlanStart(std::move(plan), desired, seen, now);
}

}  // namespace

std::string Plan::ToString() const {
  static constexpr std::string_view kOutcomes[] = {
      "Proceed", "AwaitGuest", "Running", "BackOff", "Suspending", "Suspended", "Stopping",
      "NoRoom",  "InLine",     "Stopped", "Paused",  "Released",   "Failed"};
  std::string text;
  for (const Stage& stage : stages) {
    if (!text.empty()) text += " | ";
    for (size_t i = 0; i < stage.size(); ++i) {
      if (i > 0) text += ' ';
      text += StepName(stage[i]);
    }
  }
  if (!text.empty()) text += ' ';
  return text + "-> " + std::string(kOutcomes[static_cast<size_t>(outcome)]);
}

Plan MakePlan(const Record& record, const Desired& desired, const Observed& observed, WallTime now,
              const PlanLimits& limits) {
  Plan plan;
  plan.record = record;
  plan.record.capture_for.reset();
  // Nothing that a deletion takes is kept, so only what a workload has to say to others is waited
  // for.
  const bool winds_up = record.intent == Intent::kRun && !record.sleeping &&
                        (observed.guest == GuestState::kWorking || desired.stop_asked) &&
                        MayStopByItself(record, desired, observed);
  if (desired.deleting && winds_up) return PlanStopping(std::move(plan), desired, observed);
  if (desired.deleting || record.intent == Intent::kRelease)
    return PlanRelease(std::move(plan), observed);
  if (record.intent == Intent::kStopped) {
    if (StartsAgain(record, desired))
      return PlanStartAgain(std::move(plan), desired, observed, now);
    if (desired.mode == api::OperatingMode::kStopped && !record.stopped) {
      plan.record.stopped = true;
      plan.stages.push_back({Step::kSaveIntent});
    }
    return PlanStopped(std::move(plan), observed);
  }
  if (record.intent == Intent::kSuspended) {
    if (desired.mode == api::OperatingMode::kStopped) {
      if (HasVm(observed.vmm)) return PlanAsleep(std::move(plan), observed, Outcome::kProceed);
      return PlanStop(std::move(plan), desired, observed, now);
    }
    if (desired.capture_for && record.sleeping && NothingLeft(observed))
      return PlanTemplateOfAsleep(std::move(plan), desired);
    if (desired.mode == api::OperatingMode::kSuspended)
      return PlanAsleep(std::move(plan), observed, Outcome::kSuspended);
    if (HasVm(observed.vmm)) return PlanAsleep(std::move(plan), observed, Outcome::kProceed);
    if (desired.no_room) return PlanAsleep(std::move(plan), observed, Outcome::kNoRoom);
    if (GivesUpMemory(record, desired)) return PlanDiskOnly(std::move(plan), observed);
    if (IsRefused(record, desired)) return PlanAsleep(std::move(plan), observed, Outcome::kFailed);
    return PlanStart(std::move(plan), desired, observed, now);
  }
  return PlanRun(std::move(plan), desired, observed, now, limits);
}

bool GivesUpMemory(const Record& record, const Desired& desired) {
  if (!record.sleeping || !desired.boot_from_disk || record.disk_boot_spent) return false;
  if (record.IsCloning() && record.origin->boot_snapshot) return false;
  return desired.wake_failed || record.wake_attempts > 0;
}

bool IsRefused(const Record& record, const Desired& desired) {
  return record.wake_refused == desired.generation;
}

bool StartsAgain(const Record& record, const Desired& desired) {
  return record.intent == Intent::kStopped && !desired.deleting &&
         desired.mode == api::OperatingMode::kRunning &&
         (record.stopped || desired.restarted_at > record.restarted_at);
}

bool ShouldRestart(api::RestartPolicy policy, const Ending& ending) {
  switch (policy) {
    case api::RestartPolicy::kNever:
      return false;
    case api::RestartPolicy::kOnFailure:
      return !ending.success;
    case api::RestartPolicy::kAlways:
      return true;
  }
  return false;
}

std::chrono::seconds RestartDelay(int restart_count, const PlanLimits& limits) {
  if (restart_count <= 0) return std::chrono::seconds(0);
  std::chrono::seconds delay = limits.restart_base;
  for (int i = 1; i < restart_count && delay < limits.restart_cap; ++i) delay *= 2;
  return std::min(delay, limits.restart_cap);
}

}  // namespace dormouse
