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

// The disk is worth a warning from here on (api.md).
constexpr int kCowWarningPercent = 80;

std::string PhaseOf(const api::Sandbox& sandbox, const StatusInputs& in) {
  if (sandbox.meta.deletion_time) return api::phase::kTerminating;
  if (in.refused) return api::phase::kPending;
  switch (in.outcome) {
    case Outcome::kRunning:
    case Outcome::kPaused:
      return api::phase::kRunning;
    case Outcome::kStopped:
      return in.record.ending && in.record.ending->success ? api::phase::kFinished : api::phase::kFailed;
    case Outcome::kFailed:
      return api::phase::kFailed;
    case Outcome::kReleased:
      return api::phase::kTerminating;
    case Outcome::kAwaitGuest:
      // A guest that was ready before and is silent now still runs.
      return in.record.started_at ? api::phase::kRunning : api::phase::kStarting;
    case Outcome::kProceed:
    case Outcome::kBackOff:
      return api::phase::kStarting;
  }
  return api::phase::kStarting;
}

Condition Ready(const api::Sandbox& sandbox, const StatusInputs& in) {
  Condition ready;
  ready.type = api::condition::kReady;
  ready.status = ConditionStatus::kFalse;
  const auto say = [&ready](std::string_view reason, std::string message) {
    ready.reason = reason;
    ready.message = std::move(message);
  };
  if (sandbox.meta.deletion_time) {
    say(reasons::kTerminating, "the sandbox is being deleted");
  } else if (in.problem) {
    say(in.problem->reason, in.problem->message);
  } else if (in.outcome == Outcome::kRunning) {
    ready.status = ConditionStatus::kTrue;
    say(reasons::kReady, "the guest answers");
  } else if (in.outcome == Outcome::kPaused) {
    say(reasons::kNodeDiskFull, "paused until the node has disk space again");
  } else if (in.outcome == Outcome::kStopped && in.record.ending) {
    say(in.record.ending->reason, in.record.ending->message);
  } else if (in.outcome == Outcome::kBackOff && in.record.ending) {
    say(in.record.ending->reason, in.record.ending->message + "; restart " + std::to_string(in.record.restart_count) +
                                      (in.record.not_before ? " at " + FormatTime(*in.record.not_before) : ""));
  } else if (in.record.started_at) {
    say(reasons::kGuestAgentTimeout, "the guest no longer answers");
  } else {
    say(reasons::kStarting, "waiting for the guest");
  }
  return ready;
}

Condition GuestReady(const StatusInputs& in) {
  Condition guest;
  guest.type = api::condition::kGuestReady;
  switch (in.observed.guest) {
    case GuestState::kConfigured:
    case GuestState::kWorking:
    case GuestState::kWorkloadEnded:
      guest.status = ConditionStatus::kTrue;
      guest.reason = reasons::kReady;
      guest.message = "the guest agent answers";
      return guest;
    case GuestState::kViolation:
      guest.status = ConditionStatus::kFalse;
      guest.reason = reasons::kGuestAgentTimeout;
      guest.message = "what answers in the guest does not speak the guest agent's protocol";
      return guest;
    default:
      guest.status = ConditionStatus::kFalse;
      guest.reason = in.outcome == Outcome::kStopped ? reasons::kCompleted : reasons::kStarting;
      guest.message = "the guest agent does not answer";
      return guest;
  }
}

Condition StorageHealthy(const StatusInputs& in) {
  Condition storage;
  storage.type = api::condition::kStorageHealthy;
  storage.status = ConditionStatus::kFalse;
  if (in.observed.disk_lost) {
    storage.reason = reasons::kCowExhausted;
    storage.message = "the disk's store failed a write and is lost";
  } else if (in.outcome == Outcome::kPaused) {
    storage.reason = reasons::kNodeDiskFull;
    storage.message = "the node has no disk space left";
  } else if (in.disk && in.disk->used_percent >= kCowWarningPercent) {
    storage.reason = reasons::kCowFilling;
    storage.message = "the disk differs from its base by " + std::to_string(in.disk->used_percent) + " % of its size";
  } else {
    storage.status = ConditionStatus::kTrue;
    storage.reason = reasons::kHealthy;
    storage.message = "the disk has room";
  }
  return storage;
}

}  // namespace

api::SandboxStatus ComputeStatus(const api::Sandbox& sandbox, const StatusInputs& in, WallTime now) {
  api::SandboxStatus status;
  const api::SandboxStatus& before = sandbox.status;
  status.node_name = before.node_name;
  status.observed_generation = sandbox.meta.generation;
  status.phase = PhaseOf(sandbox, in);
  // Only the agent's own conditions, with the times they had.
  for (const Condition& condition : before.conditions) {
    if (condition.type != api::condition::kScheduled && condition.type != api::condition::kReleased) {
      status.conditions.push_back(condition);
    }
  }
  const auto set = [&](Condition condition) {
    condition.observed_generation = sandbox.meta.generation;
    api::SetCondition(&status.conditions, std::move(condition), now);
  };
  set(Ready(sandbox, in));
  if (!in.refused) {
    set(GuestReady(in));
    set(StorageHealthy(in));
  }
  if (in.outcome == Outcome::kStopped) {
    set({api::condition::kFinished, ConditionStatus::kTrue,
         in.record.ending ? in.record.ending->reason : std::string(reasons::kCompleted),
         in.record.ending ? in.record.ending->message : "ended", 0, {}});
  }
  if (in.released || in.refused) {
    if (const Condition* released = api::FindCondition(before.conditions, api::condition::kReleased)) {
      status.conditions.push_back(*released);
    }
    set({api::condition::kReleased, ConditionStatus::kTrue,
         in.refused && in.problem ? in.problem->reason : std::string(reasons::kReleased),
         in.refused ? "nothing was made on this node" : "everything on the node is gone", 0, {}});
  }
  status.resources = in.refused ? std::optional<api::Resources>() : in.record.resources;
  if (in.record.ending) {
    status.exit_code = in.record.ending->exit_code;
    if (in.outcome == Outcome::kStopped) status.finished_at = in.record.ending->at;
  }
  status.started_at = in.record.started_at;
  status.restart_count = in.record.restart_count;
  if (!in.refused) {
    status.network = {in.node_ip, in.host_address, net::kGuestAddress};
    status.vm = {in.vmm.name, in.vmm.version, "Boot", std::nullopt};
  }
  if (in.record.boot_to_ready_ms) status.vm.boot_to_ready = std::chrono::milliseconds(*in.record.boot_to_ready_ms);
  if (in.disk) status.storage = api::SandboxStatus::Storage{in.disk->used_bytes, in.disk->used_percent};
  return status;
}

Problem ProblemOf(std::optional<Step> step, const Error& error) {
  const auto with = [&error](std::string_view reason) { return Problem{std::string(reason), error.message()}; };
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
  if (*step == Step::kPrepareDisk && error.code() == ErrorCode::kNoSpace) return with(reasons::kNoCapacity);
  if (*step == Step::kPrepareDisk && error.code() == ErrorCode::kCorrupt) return with(reasons::kImageDamaged);
  if (*step == Step::kPrepareNet && error.code() == ErrorCode::kInvalid) return with(reasons::kInvalidSpec);
  return with(reasons::kHostError);
}

}  // namespace dormouse
