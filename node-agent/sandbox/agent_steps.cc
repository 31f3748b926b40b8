// How the agent carries out a plan: its stages one after the other, the steps of one side by side.
#include <thread>

#include "node-agent/sandbox/agent.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/log.h"
#include "src/common/base/metrics.h"

namespace dormouse {
namespace {

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
  if (acts_first && RuntimeOf(record->uid).commit_in_doubt) {
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
  UpdateRuntime(record->uid, [&](Runtime& runtime) {
    if (plan.stages.empty()) return;
    if (plan.outcome == Outcome::kAwaitGuest) {
      runtime.seen = RunningVm();
      runtime.looked_at = clock_.Now();
      runtime.network = spec.network;
    } else if (plan.outcome != Outcome::kRunning) {
      runtime.seen.reset();
    } else if (runtime.seen) {
      runtime.seen->stale_files = false;
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
  switch (step) {
    case Step::kSaveIntent:
      if (auto saved = records_.Save(*record); !saved) {
        // A deletion makes room, so it needs none; the object says that it is wanted, too.
        if (record->intent != Intent::kRelease || saved.error().code() != ErrorCode::kNoSpace)
          return saved;
        log::Warning("a sandbox is deleted without a record of it",
                     {{"sandbox", record->key().ToString()}, {"error", saved.error().message()}});
      }
      UpdateRuntime(record->uid, [](Runtime& runtime) { runtime.commit_in_doubt = false; });
      break;
    case Step::kLaunchVmm:
      UpdateRuntime(record->uid, [&](Runtime& runtime) {
        runtime.launched = clock_.Now();
        runtime.thawed = false;
        runtime.thaw_failed.reset();
      });
      DORMOUSE_TRY(machine_.Do(step, spec, record));
      DORMOUSE_TRY(failpoint::Hit("agent.step.launched." + std::string(StepName(step)),
                                  record->key().ToString()));
      DORMOUSE_TRY(machine_.Watch(*record));
      break;
    case Step::kSaveVmm:
      DORMOUSE_TRY(records_.Save(*record));
      break;
    case Step::kCommitSuspend:
      DORMOUSE_TRY(CommitSuspend(record));
      break;
    case Step::kCommitWake:
      DORMOUSE_TRY(CommitWake(record));
      break;
    case Step::kForgetMemory:
      DORMOUSE_TRY(ForgetMemory(record));
      break;
    case Step::kCommitTemplate:
      DORMOUSE_TRY(CommitTemplate(spec, record));
      break;
    case Step::kBootVm:
      DORMOUSE_TRY(machine_.Do(step, spec, record));
      // Of an earlier incarnation the disk holds what a tenant wrote.
      UpdateRuntime(record->uid, [&](Runtime& runtime) {
        runtime.fresh_boot = record->incarnation == 1 && !record->origin;
      });
      break;
    case Step::kThawGuest:
      DORMOUSE_TRY(machine_.Do(step, spec, record));
      UpdateRuntime(record->uid, [](Runtime& runtime) { runtime.thawed = true; });
      break;
    case Step::kConfigureGuest:
      UpdateRuntime(record->uid, [](Runtime& runtime) { runtime.fresh_boot = false; });
      DORMOUSE_TRY(machine_.Do(step, spec, record));
      break;
    case Step::kPrepareCapture:
    case Step::kPauseVm:
      // Before the guest is frozen: its memory shall hold no connection of ours, and one that
      // stands still cannot answer. It is asked anew when it works again.
      machine_.StopAwaiting(*record);
      DORMOUSE_TRY(machine_.Do(step, spec, record));
      break;
    case Step::kKillVmm:
      machine_.Unwatch(*record);
      DORMOUSE_TRY(machine_.Do(step, spec, record));
      break;
    case Step::kRemoveFiles:
      DORMOUSE_TRY(machine_.Do(step, spec, record));
      DORMOUSE_TRY(records_.Remove(record->uid));
      TellTemplate(*record);
      break;
    default:
      return machine_.Do(step, spec, record);
  }
  return {};
}

}  // namespace dormouse
