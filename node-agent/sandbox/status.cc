#include "node-agent/sandbox/status.h"

#include <algorithm>

#include "node-agent/net/address_plan.h"
#include "src/common/api/reasons.h"
#include "src/common/base/time.h"

namespace dormouse {
namespace {

using api::Condition;
using api::ConditionStatus;
namespace reasons = api::reasons;

// The disk is worth a warning from here on.
constexpr int kCowWarningPercent = 80;

// A clone that starts is woken too, but was not this sandbox before.
bool IsWaking(const Record& record) {
  return record.sleeping && !record.IsCloning();
}

// How the machine that runs came to be; of one that does not run, how it last did.
std::string StartModeOf(const api::Sandbox& sandbox, const StatusInputs& in) {
  const Record& record = in.record;
  const bool runs = in.outcome == Outcome::kRunning || in.outcome == Outcome::kPaused ||
                    in.outcome == Outcome::kAwaitGuest || in.outcome == Outcome::kProceed;
  if (!runs) return sandbox.status.vm.start_mode;
  const auto from = record.sleeping ? record.sleeping : record.memory_generation;
  if (!from) return "Boot";
  if (*from > 0) return "Resume";
  return record.origin && record.origin->boot_snapshot ? "BootSnapshot" : "Template";
}

std::string PhaseOf(const api::Sandbox& sandbox, const StatusInputs& in) {
  if (sandbox.meta.deletion_time) return api::phase::kTerminating;
  if (in.refused) return api::phase::kPending;
  switch (in.outcome) {
    case Outcome::kRunning:
    case Outcome::kPaused:
      return api::phase::kRunning;
    case Outcome::kStopping:
      return api::phase::kStopping;
    case Outcome::kStopped:
      if (in.record.stopped) return api::phase::kStopped;
      return in.record.ending && in.record.ending->success ? api::phase::kFinished
                                                           : api::phase::kFailed;
    case Outcome::kFailed:
      return IsWaking(in.record) ? api::phase::kSuspended : api::phase::kFailed;
    case Outcome::kReleased:
      return api::phase::kTerminating;
    case Outcome::kAwaitGuest:
      // A guest that was ready before and is silent now still runs.
      if (IsWaking(in.record)) return api::phase::kResuming;
      return in.record.started_at ? api::phase::kRunning : api::phase::kStarting;
    case Outcome::kSuspending:
      return api::phase::kSuspending;
    case Outcome::kNoRoom:
      return in.record.intent == Intent::kStopped ? api::phase::kStopped : api::phase::kSuspended;
    case Outcome::kSuspended:
      return api::phase::kSuspended;
    case Outcome::kBackOff:
    case Outcome::kInLine:
      return IsWaking(in.record) ? api::phase::kSuspended : api::phase::kStarting;
    case Outcome::kProceed:
      return IsWaking(in.record) ? api::phase::kResuming : api::phase::kStarting;
  }
  return api::phase::kStarting;
}

void Say(Condition* condition, std::string_view reason, std::string message) {
  condition->reason = reason;
  condition->message = std::move(message);
}

std::string_view WhyItSleeps(const api::Sandbox& sandbox) {
  return api::IsIdleSuspended(sandbox) ? reasons::kIdleTimeout : reasons::kSuspendedByUser;
}

Condition Ready(const api::Sandbox& sandbox, const StatusInputs& in) {
  Condition ready;
  ready.type = api::condition::kReady;
  ready.status = ConditionStatus::kFalse;
  if (sandbox.meta.deletion_time) {
    Say(&ready, reasons::kTerminating, "the sandbox is being deleted");
  } else if (in.problem) {
    Say(&ready, in.problem->reason, in.problem->message);
  } else if (in.outcome == Outcome::kRunning) {
    ready.status = ConditionStatus::kTrue;
    Say(&ready, reasons::kReady, "the guest answers");
  } else if (in.outcome == Outcome::kPaused) {
    Say(&ready, reasons::kNodeDiskFull, in.stopped_by_disk);
  } else if (in.outcome == Outcome::kSuspended || in.outcome == Outcome::kSuspending) {
    Say(&ready, WhyItSleeps(sandbox),
        in.outcome == Outcome::kSuspended ? "asleep" : "being suspended");
  } else if (in.outcome == Outcome::kNoRoom) {
    Say(&ready, reasons::kNoCapacity,
        std::string(in.record.intent == Intent::kStopped ? "off" : "asleep") +
            " until the node has memory for it");
  } else if (in.outcome == Outcome::kStopping) {
    Say(&ready, reasons::kStopping, "its workload is asked to end, then it is powered off");
  } else if (in.outcome == Outcome::kInLine) {
    Say(&ready, reasons::kStarting, "in line: others wake first");
  } else if ((in.outcome == Outcome::kStopped || in.outcome == Outcome::kFailed) &&
             in.record.ending) {
    Say(&ready, in.record.ending->reason, in.record.ending->message);
  } else if (in.outcome == Outcome::kBackOff && in.record.ending) {
    const std::string what = in.record.sleeping
                                 ? "; attempt " + std::to_string(in.record.wake_attempts + 1)
                                 : "; restart " + std::to_string(in.record.restart_count);
    Say(&ready, in.record.ending->reason,
        in.record.ending->message + what +
            (in.record.not_before ? " at " + FormatTime(*in.record.not_before) : ""));
  } else if (in.observed.vmm == VmmState::kSilent && in.record.started_at) {
    Say(&ready, reasons::kVmmHung, "the VMM does not answer; it is ended if that lasts");
  } else if (in.record.started_at) {
    Say(&ready, reasons::kGuestAgentTimeout, "the guest no longer answers");
  } else {
    Say(&ready, reasons::kStarting, "waiting for the guest");
  }
  return ready;
}

Condition GuestReady(const api::Sandbox& sandbox, const StatusInputs& in) {
  Condition guest;
  guest.type = api::condition::kGuestReady;
  guest.status = ConditionStatus::kFalse;
  switch (in.observed.guest) {
    case GuestState::kConfigured:
    case GuestState::kWorking:
    case GuestState::kWorkloadEnded:
      guest.status = ConditionStatus::kTrue;
      Say(&guest, reasons::kReady, "the guest agent answers");
      break;
    case GuestState::kViolation:
      Say(&guest, reasons::kGuestAgentTimeout,
          "what answers in the guest does not speak the guest agent's protocol");
      break;
    case GuestState::kAnswering:
      Say(&guest, reasons::kStarting, "the guest agent answers, and is being set up");
      break;
    case GuestState::kFrozen:
      Say(&guest, IsWaking(in.record) ? reasons::kResuming : reasons::kSuspending,
          "the guest agent answers; the guest's programs stand still");
      break;
    default:
      if (in.outcome == Outcome::kSuspended || in.outcome == Outcome::kSuspending) {
        Say(&guest, WhyItSleeps(sandbox), "the guest stands still");
      } else if (in.outcome == Outcome::kFailed && in.record.wake_refused) {
        Say(&guest, reasons::kResumeFailed, "no guest runs: it refused to go on");
      } else if (in.record.intent == Intent::kStopped || in.outcome == Outcome::kBackOff) {
        Say(&guest, in.record.ending ? in.record.ending->reason : reasons::kStarting,
            "no guest runs");
      } else {
        Say(&guest, reasons::kStarting, "the guest agent does not answer");
      }
      break;
  }
  return guest;
}

// Nothing while there was never a question of it.
std::optional<Condition> Suspended(const api::Sandbox& sandbox, const StatusInputs& in) {
  Condition suspended;
  suspended.type = api::condition::kSuspended;
  if (in.outcome == Outcome::kSuspended ||
      (in.outcome == Outcome::kNoRoom && in.record.intent == Intent::kSuspended) ||
      ((in.outcome == Outcome::kBackOff || in.outcome == Outcome::kInLine ||
        in.outcome == Outcome::kFailed) &&
       IsWaking(in.record))) {
    suspended.status = ConditionStatus::kTrue;
    Say(&suspended, WhyItSleeps(sandbox),
        in.record.IsCloning() ? "its memory and its disk are its template's: it has not run"
                              : "only its disk is kept: it did not run when it was suspended");
    if (in.record.sleeping && in.record.capture) {
      suspended.message =
          "asleep with its memory: " + std::to_string(in.record.capture->written_bytes >> 10) +
          " KiB written, " + std::to_string(in.record.capture->memory_bytes >> 20) +
          " MiB on disk, stood still for " + std::to_string(in.record.capture->pause_window_ms) +
          " ms";
    }
    if (in.memory_problem) {
      Say(&suspended, in.memory_problem->reason, in.memory_problem->message);
    }
    return suspended;
  }
  suspended.status = ConditionStatus::kFalse;
  if (in.capture_problem) {
    Say(&suspended, in.capture_problem->reason,
        in.capture_problem->message + "; it runs on, and is suspended later");
    return suspended;
  }
  if (in.outcome == Outcome::kSuspending) {
    Say(&suspended, reasons::kSuspending, "its memory is being written");
    return suspended;
  }
  if (in.outcome == Outcome::kAwaitGuest && in.record.started_at && !IsWaking(in.record) &&
      sandbox.spec.operating_mode == api::OperatingMode::kSuspended) {
    Say(&suspended, reasons::kGuestAgentTimeout,
        "suspended as soon as the guest agent, which has to freeze it, answers");
    return suspended;
  }
  if (api::FindCondition(sandbox.status.conditions, api::condition::kSuspended) == nullptr)
    return std::nullopt;
  Say(&suspended, IsWaking(in.record) ? reasons::kResuming : reasons::kRunning,
      IsWaking(in.record) ? "being woken" : "awake");
  return suspended;
}

Condition Idle(const api::Idle& wish, const IdleWatch::Shown& shown) {
  Condition idle;
  idle.type = api::condition::kIdle;
  idle.status = shown.idle ? ConditionStatus::kTrue : ConditionStatus::kFalse;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wish.timeout);
  const std::string timeout = std::to_string(seconds.count()) + " s";
  Say(&idle, shown.idle ? reasons::kIdleTimeout : reasons::kRunning,
      shown.idle ? "nothing has happened in it for " + timeout
                 : "something has happened in it within the last " + timeout);
  return idle;
}

Condition StorageHealthy(const StatusInputs& in) {
  Condition storage;
  storage.type = api::condition::kStorageHealthy;
  storage.status = ConditionStatus::kFalse;
  if (in.observed.disk_lost) {
    Say(&storage, reasons::kCowExhausted, "the disk's store failed a write and is lost");
  } else if (in.outcome == Outcome::kPaused) {
    Say(&storage, reasons::kNodeDiskFull, "the node is short of disk space");
  } else if (in.disk && in.disk->used_percent >= kCowWarningPercent) {
    Say(&storage, reasons::kCowFilling,
        "the disk differs from its base by " + std::to_string(in.disk->used_percent) +
            " % of its size");
  } else {
    storage.status = ConditionStatus::kTrue;
    Say(&storage, reasons::kHealthy, "the disk has room");
  }
  return storage;
}

}  // namespace

api::SandboxStatus ComputeStatus(const api::Sandbox& sandbox, const StatusInputs& in,
                                 WallTime now) {
  api::SandboxStatus status;
  const api::SandboxStatus& before = sandbox.status;
  status.node_name = before.node_name;
  status.observed_generation = sandbox.meta.generation;
  status.phase = PhaseOf(sandbox, in);
  // Only the agent's own conditions, with the times they had.
  for (const Condition& condition : before.conditions) {
    // One that was started again has not finished.
    const bool over = condition.type == api::condition::kFinished && !in.refused &&
                      in.record.intent == Intent::kRun && in.outcome != Outcome::kFailed;
    if (condition.type != api::condition::kScheduled &&
        condition.type != api::condition::kReleased && condition.type != api::condition::kIdle &&
        !over) {
      status.conditions.push_back(condition);
    }
  }
  const auto set = [&](Condition condition) {
    condition.observed_generation = sandbox.meta.generation;
    api::SetCondition(&status.conditions, std::move(condition), now);
  };
  set(Ready(sandbox, in));
  if (!in.refused) {
    set(GuestReady(sandbox, in));
    set(StorageHealthy(in));
  }
  status.last_active_time = before.last_active_time;
  if (in.idle && sandbox.spec.idle) {
    set(Idle(*sandbox.spec.idle, *in.idle));
    status.last_active_time = in.idle->last_active;
    status.idle_deadline = in.idle->deadline;
  }
  if (!in.refused) {
    if (auto suspended = Suspended(sandbox, in)) set(std::move(*suspended));
  }
  const bool ended = in.outcome == Outcome::kStopped && in.record.ending &&
                     in.record.ending->reason != reasons::kStopped;
  if (ended) {
    set({api::condition::kFinished,
         ConditionStatus::kTrue,
         in.record.ending->reason,
         in.record.ending->message,
         0,
         {}});
  }
  if (in.released || in.refused) {
    if (const Condition* released =
            api::FindCondition(before.conditions, api::condition::kReleased)) {
      status.conditions.push_back(*released);
    }
    set({api::condition::kReleased,
         ConditionStatus::kTrue,
         in.refused && in.problem ? in.problem->reason : std::string(reasons::kReleased),
         in.refused ? "nothing was made on this node" : "everything on the node is gone",
         0,
         {}});
  }
  status.resources = in.refused ? std::optional<api::Resources>() : in.record.resources;
  if (!in.refused && in.record.disk_bytes > 0) status.disk_bytes = in.record.disk_bytes;
  if (in.record.ending) {
    status.exit_code = in.record.ending->exit_code;
    if (ended) status.finished_at = in.record.ending->at;
  }
  status.started_at = in.record.started_at;
  status.restart_count = in.record.restart_count;
  if (in.record.sleeping) status.suspended_at = in.record.suspended_at;
  if (in.record.capture) {
    status.snapshot = api::SandboxStatus::Snapshot{
        in.record.capture->memory_bytes, in.record.capture->written_bytes,
        std::chrono::milliseconds(in.record.capture->pause_window_ms),
        static_cast<int64_t>(in.record.generations), in.record.capture->stages};
  }
  if (!in.refused) {
    status.network = {in.node_ip, in.host_address, net::kGuestAddress};
    status.vm = {in.vmm.name, in.vmm.version, StartModeOf(sandbox, in), std::nullopt};
  }
  if (in.record.boot_to_ready_ms)
    status.vm.boot_to_ready = std::chrono::milliseconds(*in.record.boot_to_ready_ms);
  if (in.disk)
    status.storage = api::SandboxStatus::Storage{in.disk->used_bytes, in.disk->used_percent};
  return status;
}

Problem ProblemOf(std::optional<Step> step, const Error& error) {
  const auto with = [&error](std::string_view reason) {
    return Problem{std::string(reason), error.message()};
  };
  if (!step) {
    switch (error.code()) {
      case ErrorCode::kNotFound:
      case ErrorCode::kUnavailable:
        return with(reasons::kImageNotFound);
      case ErrorCode::kCorrupt:
        return with(reasons::kImageDamaged);
      case ErrorCode::kInvalid:
        return with(reasons::kInvalidSpec);
      case ErrorCode::kNoSpace:
        return with(reasons::kNoCapacity);
      case ErrorCode::kUnsupported:
        return with(reasons::kHypervisorUnsupported);
      default:
        return with(reasons::kHostError);
    }
  }
  switch (TraitsOf(*step).kind) {
    case StepKind::kCapture:
      return with(reasons::kSnapshotFailed);
    case StepKind::kRestore:
      return with(error.code() == ErrorCode::kUnsupported ? reasons::kSnapshotIncompatible
                                                          : reasons::kResumeFailed);
    case StepKind::kWake:
      return with(reasons::kResumeFailed);
    case StepKind::kPlain:
      break;
  }
  if ((*step == Step::kPrepareDisk || *step == Step::kMakeStore) &&
      error.code() == ErrorCode::kNoSpace)
    return with(reasons::kNoCapacity);
  if (*step == Step::kPrepareDisk && error.code() == ErrorCode::kCorrupt)
    return with(reasons::kImageDamaged);
  if (*step == Step::kPrepareNet && error.code() == ErrorCode::kInvalid)
    return with(reasons::kInvalidSpec);
  // What a guest answers, or does not, is none of the node's kernel.
  if (*step == Step::kConfigureGuest || *step == Step::kStartWorkload)
    return with(reasons::kGuestAgentTimeout);
  return with(reasons::kHostError);
}

}  // namespace dormouse
