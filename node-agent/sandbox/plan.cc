#include "node-agent/sandbox/plan.h"

#include <algorithm>

#include "src/common/api/reasons.h"

namespace dormouse {
namespace {

bool HasVm(VmmState state) { return state != VmmState::kAbsent; }

bool AnythingInKernel(const Observed& seen) {
  return HasVm(seen.vmm) || seen.disk != Presence::kAbsent || seen.net != Presence::kAbsent || seen.cgroup ||
         seen.vmm_directory;
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

Plan PlanStopped(Plan plan, const Observed& seen) {
  if (AnythingInKernel(seen)) AppendTeardown(seen, &plan.stages);
  plan.outcome = Outcome::kStopped;
  return plan;
}

// An incarnation has ended: another one follows by the policy, or the sandbox is finished.
Plan PlanEnded(Plan plan, const Desired& desired, const Observed& seen, Ending ending, WallTime now,
               const PlanLimits& limits) {
  Record& record = plan.record;
  record.ending = std::move(ending);
  record.vmm.reset();
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

// Up to a VM that runs. Everything before the launch is side by side: the VMM needs all of it.
Plan PlanStart(Plan plan, const Observed& seen, WallTime now) {
  Record& record = plan.record;
  if (record.not_before && now < *record.not_before) {
    plan.outcome = Outcome::kBackOff;
    plan.at = record.not_before;
    return plan;
  }
  Stage prepare;
  if (seen.disk != Presence::kComplete) prepare.push_back(Step::kPrepareDisk);
  if (seen.net != Presence::kComplete) prepare.push_back(Step::kPrepareNet);
  if (!seen.cgroup || !seen.vmm_directory) prepare.push_back(Step::kPrepareVmm);
  if (!prepare.empty()) plan.stages.push_back(std::move(prepare));
  switch (seen.vmm) {
    case VmmState::kForeign:
      plan.stages.push_back({Step::kKillVmm});
      [[fallthrough]];
    case VmmState::kAbsent:
      ++record.incarnation;
      record.vmm.reset();
      record.not_before.reset();
      plan.stages.insert(plan.stages.begin(), Stage{Step::kSaveIntent});
      plan.stages.push_back({Step::kLaunchVmm});
      [[fallthrough]];
    case VmmState::kStarting:
      plan.stages.push_back({Step::kCreateVm});
      [[fallthrough]];
    case VmmState::kCreated:
      plan.stages.push_back({Step::kBootVm});
      break;
    case VmmState::kPaused:
    case VmmState::kRunning:
      break;
  }
  plan.outcome = Outcome::kAwaitGuest;
  return plan;
}

Plan PlanGuest(Plan plan, const Desired& desired, const Observed& seen) {
  switch (seen.guest) {
    case GuestState::kUnknown:
    case GuestState::kSilent:
    case GuestState::kViolation:
      plan.outcome = Outcome::kAwaitGuest;
      return plan;
    case GuestState::kAnswering:
      plan.stages.push_back({Step::kConfigureGuest});
      [[fallthrough]];
    case GuestState::kConfigured:
      if (desired.has_workload) plan.stages.push_back({Step::kStartWorkload});
      break;
    case GuestState::kWorking:
    case GuestState::kWorkloadEnded:
      break;
  }
  plan.outcome = Outcome::kRunning;
  return plan;
}

Plan PlanRun(Plan plan, const Desired& desired, const Observed& seen, WallTime now, const PlanLimits& limits) {
  if (seen.disk_lost) {
    // Data that can no longer be read is still not ours to delete: stop, say so, keep the files.
    return PlanEnded(std::move(plan), Desired{.restart_policy = api::RestartPolicy::kNever}, seen,
                     Ending{std::string(api::reasons::kCowExhausted),
                            "the disk's store failed a write and is lost; its files are kept", false, std::nullopt, now},
                     now, limits);
  }
  if (seen.vmm_ending && seen.vmm == VmmState::kAbsent && plan.record.vmm) {
    return PlanEnded(std::move(plan), desired, seen, *seen.vmm_ending, now, limits);
  }
  if (seen.guest_ending) return PlanEnded(std::move(plan), desired, seen, *seen.guest_ending, now, limits);
  if (seen.guest_timed_out) {
    return PlanEnded(std::move(plan), desired, seen,
                     Ending{std::string(api::reasons::kGuestAgentTimeout),
                            "the guest did not answer within its boot deadline", false, std::nullopt, now},
                     now, limits);
  }
  if (seen.guest == GuestState::kWorkloadEnded) {
    const int code = seen.workload_exit_code.value_or(-1);
    return PlanEnded(std::move(plan), desired, seen,
                     Ending{std::string(code == 0 ? api::reasons::kWorkloadEnded : api::reasons::kWorkloadFailed),
                            "the workload ended with exit code " + std::to_string(code), code == 0, code, now},
                     now, limits);
  }
  const bool whole = seen.disk == Presence::kComplete && seen.net == Presence::kComplete && seen.cgroup &&
                     seen.vmm_directory;
  if (seen.vmm == VmmState::kPaused && whole) {
    if (desired.node_disk_full) {
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
    return PlanGuest(std::move(plan), desired, seen);
  }
  return PlanStart(std::move(plan), seen, now);
}

}  // namespace

std::string_view StepName(Step step) {
  switch (step) {
    case Step::kSaveIntent:
      return "record.save";
    case Step::kPrepareDisk:
      return "disk.prepare";
    case Step::kPrepareNet:
      return "net.prepare";
    case Step::kPrepareVmm:
      return "vmm.prepare";
    case Step::kLaunchVmm:
      return "vmm.launch";
    case Step::kCreateVm:
      return "vmm.create";
    case Step::kBootVm:
      return "vmm.boot";
    case Step::kResumeVm:
      return "vmm.resume";
    case Step::kPauseVm:
      return "vmm.pause";
    case Step::kConfigureGuest:
      return "guest.configure";
    case Step::kStartWorkload:
      return "guest.start";
    case Step::kKillVmm:
      return "vmm.kill";
    case Step::kReleaseDisk:
      return "disk.release";
    case Step::kRemoveNet:
      return "net.remove";
    case Step::kRemoveVmm:
      return "vmm.remove";
    case Step::kRemoveFiles:
      return "files.remove";
  }
  return "?";
}

std::string Plan::ToString() const {
  static constexpr std::string_view kOutcomes[] = {"Proceed", "AwaitGuest", "Running",  "BackOff",
                                                   "Stopped", "Paused",     "Released", "Failed"};
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
  if (desired.deleting || record.intent == Intent::kRelease) return PlanRelease(std::move(plan), observed);
  if (record.intent == Intent::kStopped) return PlanStopped(std::move(plan), observed);
  return PlanRun(std::move(plan), desired, observed, now, limits);
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
