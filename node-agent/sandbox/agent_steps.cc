// How the agent carries out a plan: its stages one after the other, the steps of one side by side.
#include <thread>

#include "node-agent/sandbox/agent.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/log.h"
#include "src/common/base/metrics.h"

namespace dormouse {
namespace {

// From a workload's SIGKILL to the exit of the VMM: the guest's last writes, in emulation too.
constexpr auto kPowerOffMargin = std::chrono::seconds(15);

Observed RunningVm() {
  Observed seen;
  seen.disk = seen.net = Presence::kComplete;
  seen.cgroup = seen.vmm_directory = true;
  seen.vmm = VmmState::kRunning;
  return seen;
}

// From a reflink to the boot of a guest in emulation.
const std::vector<double>& StepBuckets() {
  static const std::vector<double> bounds = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30};
  return bounds;
}

void CountStep(const std::string& step, std::chrono::nanoseconds took, bool ok) {
  metrics::Registry& registry = metrics::Registry::Default();
  registry
      .MakeHistogram("dormouse_step_duration_seconds",
                     "What the steps of a sandbox's way took: suspend, wake, start, release.",
                     StepBuckets(), {{"step", step}})
      .Observe(std::chrono::duration<double>(took).count());
  if (ok) return;
  registry.MakeCounter("dormouse_step_failures_total", "Steps that failed.", {{"step", step}})
      .Increment();
}

}  // namespace

Result<> Agent::Carry(const Plan& plan, const api::SandboxSpec& spec, Record* record,
                      std::optional<Step>* failed) {
  *record = plan.record;
  api::CaptureStages capture;
  const bool acts_first = !plan.stages.empty() && plan.stages.front().front() != Step::kSaveIntent;
  if (acts_first && CommitIsInDoubt(*record)) {
    // The one on disk may say that it sleeps: it says what is so before a guest runs on.
    DORMOUSE_TRY(CarryStage({Step::kSaveIntent}, spec, record, &capture, failed));
  }
  for (const Stage& stage : plan.stages) {
    auto carried = CarryStage(stage, spec, record, &capture, failed);
    if (!carried) {
      if (*failed == Step::kSaveIntent) {
        if (auto dropped = records_.DropUnrecorded(record->uid); !dropped) {
          log::Warning(
              "what was made beside a record that could not be written stays",
              {{"sandbox", record->key().ToString()}, {"error", dropped.error().message()}});
        }
      }
      return carried;
    }
  }
  if (plan.stages.empty()) return {};
  Remember(record->uid, [&](Remembered& kept) {
    if (plan.outcome == Outcome::kAwaitGuest) {
      kept.look.Note(RunningVm(), clock_.Now());
    } else if (plan.outcome == Outcome::kRunning) {
      kept.look.NotePruned();
    } else {
      kept.look.Forget();
    }
  });
  return {};
}

Result<> Agent::CarryStage(const Stage& stage, const api::SandboxSpec& spec, Record* record,
                           api::CaptureStages* capture, std::optional<Step>* failed) {
  std::vector<Result<>> results(stage.size());
  std::vector<std::thread> lanes;
  // Only stages of one step change the record.
  std::vector<Record> copies(stage.size() > 1 ? stage.size() - 1 : 0, *record);
  for (size_t i = 1; i < stage.size(); ++i) {
    lanes.emplace_back([this, i, &stage, &spec, &copies, capture, &results] {
      results[i] = CarryStep(stage[i], spec, &copies[i - 1], capture);
    });
  }
  results[0] = CarryStep(stage[0], spec, record, capture);
  for (std::thread& lane : lanes) lane.join();
  for (size_t i = 0; i < stage.size(); ++i) {
    if (!results[i]) {
      *failed = stage[i];
      return results[i];
    }
  }
  return {};
}

Result<> Agent::CarryStep(Step step, const api::SandboxSpec& spec, Record* record,
                          api::CaptureStages* capture) {
  const std::string name(StepName(step));
  const std::string subject = record->key().ToString();
  const MonotonicTime began = clock_.Now();
  DORMOUSE_TRY(failpoint::Hit("agent.step.before." + name, subject));
  if (record->capture_for) DORMOUSE_TRY(GoOnCapturing(*record->capture_for));
  const auto done = DoStep(step, spec, record);
  const auto took = clock_.Now() - began;
  CountStep(name, took, done.has_value());
  DORMOUSE_TRY(done);
  // Lanes write each its own.
  if (const auto stage = TraitsOf(step).took)
    capture->*stage = std::chrono::duration_cast<std::chrono::milliseconds>(took);
  if (step == Step::kSyncCapture)
    (record->capture_for ? record->capture_for->figures : *record->capture).stages = *capture;
  log::Debug("step", {{"step", name},
                      {"sandbox", subject},
                      {"us", std::chrono::duration_cast<std::chrono::microseconds>(took).count()}});
  return failpoint::Hit("agent.step.after." + name, subject);
}

Result<> Agent::DoStep(Step step, const api::SandboxSpec& spec, Record* record) {
  if (TraitsOf(step).owner == StepOwner::kAgent) return DoOwnStep(step, spec, record);
  BeforeStep(step, *record);
  DORMOUSE_TRY(machine_.Do(step, spec, record));
  return AfterStep(step, spec, *record);
}

Result<> Agent::DoOwnStep(Step step, const api::SandboxSpec& spec, Record* record) {
  switch (step) {
    case Step::kSaveIntent:
      return SaveIntent(*record);
    case Step::kSaveVmm:
      return records_.Save(*record);
    case Step::kCommitSuspend:
      return CommitSuspend(record);
    case Step::kCommitWake:
      return CommitWake(record);
    case Step::kForgetMemory:
      return ForgetMemory(spec, record);
    case Step::kCommitTemplate:
      return CommitTemplate(spec, record);
    default:
      return NobodyCarriesOut(step);
  }
}

Result<> Agent::SaveIntent(const Record& record) {
  if (auto saved = records_.Save(record); !saved) {
    // A deletion makes room, so it needs none; the object says that it is wanted, too.
    if (record.intent != Intent::kRelease || saved.error().code() != ErrorCode::kNoSpace)
      return saved;
    log::Warning("a sandbox is deleted without a record of it",
                 {{"sandbox", record.key().ToString()}, {"error", saved.error().message()}});
  }
  Remember(record.uid, [](Remembered& kept) { kept.commit_in_doubt = false; });
  return {};
}

void Agent::BeforeStep(Step step, const Record& record) {
  if (step == Step::kLaunchVmm)
    Remember(record.uid, [&](Remembered& kept) { kept.vmm.Launched(clock_.Now()); });
  if (step == Step::kConfigureGuest)
    Remember(record.uid, [](Remembered& kept) { kept.vmm.ToldItsTenant(); });
  // Before the guest is frozen: its memory shall hold no connection of ours, and one that stands
  // still cannot answer. It is asked anew when it works again.
  if (step == Step::kPrepareCapture || step == Step::kPauseVm) machine_.StopAwaiting(record);
  // One that died by itself is not killed; what is watched of it would keep its directory.
  if (step == Step::kKillVmm || step == Step::kRemoveVmm) machine_.Unwatch(record);
}

Result<> Agent::AfterStep(Step step, const api::SandboxSpec& spec, const Record& record) {
  if (step == Step::kLaunchVmm) {
    DORMOUSE_TRY(failpoint::Hit("agent.step.launched." + std::string(StepName(step)),
                                record.key().ToString()));
    return machine_.Watch(record);
  }
  // Of an earlier incarnation the disk holds what a tenant wrote.
  if (step == Step::kBootVm) {
    Remember(record.uid,
             [&](Remembered& kept) { kept.vmm.Booted(record.incarnation == 1 && !record.origin); });
  }
  if (step == Step::kStopGuest) {
    const MonotonicTime due = clock_.Now() + spec.termination_grace + kPowerOffMargin;
    Remember(record.uid, [&](Remembered& kept) { kept.vmm.StopAsked(due); });
  }
  if (step == Step::kThawGuest) Remember(record.uid, [](Remembered& kept) { kept.vmm.Thawed(); });
  if (step == Step::kRemoveFiles) {
    DORMOUSE_TRY(records_.Remove(record.uid));
    TellTemplate(record);
  }
  return {};
}

}  // namespace dormouse
