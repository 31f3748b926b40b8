// What the agent tells the API server: one status, and events.
#include <nlohmann/json.hpp>
#include <utility>

#include "node-agent/sandbox/agent.h"
#include "src/common/api/reasons.h"
#include "src/common/base/json_text.h"
#include "src/common/base/time.h"

namespace dormouse {

namespace reasons = api::reasons;

Result<> Agent::Tell(const api::Sandbox& sandbox, StatusInputs in) {
  const Told told = Recall(sandbox.uid, [](const Remembered& kept) { return kept.told; });
  in.node_ip = options_.node_ip;
  in.disk = told.disk;
  in.stopped_by_disk = StoppedByDisk(sandbox.uid).value_or("");
  if (sandbox.spec.operating_mode == api::OperatingMode::kSuspended) {
    in.capture_problem =
        Recall(sandbox.uid, [](const Remembered& kept) { return kept.suspends.problem(); });
  }
  if (in.record.sleeping.value_or(0) != 0) {
    if (const auto damage = DamageOf(sandbox.uid, *in.record.sleeping)) {
      in.memory_problem = Problem{std::string(reasons::kResumeFailed),
                                  "asleep, and it could not be woken: " + *damage};
    }
  }
  if (in.vmm.name.empty()) in.vmm = machine_.Vmm();
  if (in.record.slot != 0) in.host_address = machine_.HostAddress(in.record);
  const api::Sandbox& before = Newer(sandbox, told.object);
  const api::SandboxStatus status = ComputeStatus(before, in, clock_.WallNow());
  const std::string text = JsonText(api::AgentStatusToJson(status));
  Remember(sandbox.uid, [&](Remembered& kept) {
    kept.told.phase = status.phase;
    if (const auto* ready = api::FindCondition(status.conditions, api::condition::kReady))
      kept.told.ready_reason = ready->reason;
  });
  const std::string known =
      told.status.empty() ? JsonText(api::AgentStatusToJson(before.status)) : told.status;
  if (text == known) {
    Announce(before, in, status);
    return {};
  }
  DORMOUSE_ASSIGN(auto written, control_plane_.WriteStatus(before, status));
  // Only what was told is announced: a write that is tried again announces once.
  Announce(before, in, status);
  if (in.released || !written) {
    own_writes_.Forget(sandbox.uid.text());
    std::lock_guard lock(mutex_);
    remembered_.erase(sandbox.uid);
    return {};
  }
  NoteWritten(*written, text);
  return {};
}

void Agent::NoteWritten(const api::Sandbox& written, std::string status) {
  own_writes_.Wrote(written.uid.text(), written.meta.resource_version);
  Remember(written.uid, [&](Remembered& kept) {
    kept.told.status = std::move(status);
    kept.told.version = written.meta.resource_version;
    kept.told.object = written;
  });
}

void Agent::WarnOfIdleness(const api::Sandbox& sandbox, const StatusInputs& in) {
  const bool soon = in.idle && in.idle->soon;
  bool told = false;
  Remember(sandbox.uid, [&](Remembered& kept) { told = std::exchange(kept.told.idle_soon, soon); });
  if (!soon || told) return;
  const bool removes = sandbox.spec.idle->action == api::IdleAction::kDelete;
  control_plane_.Event(sandbox, removes, reasons::kIdleTimeout,
                       std::string("nothing happens in it: it is ") +
                           (removes ? "deleted" : "suspended") + " at " +
                           FormatTime(in.idle->deadline) + " unless something does");
}

void Agent::Announce(const api::Sandbox& sandbox, const StatusInputs& in,
                     const api::SandboxStatus& status) {
  WarnOfIdleness(sandbox, in);
  const auto* ready = api::FindCondition(status.conditions, api::condition::kReady);
  if (ready == nullptr) return;
  const auto* suspended = api::FindCondition(status.conditions, api::condition::kSuspended);
  const auto* before = api::FindCondition(sandbox.status.conditions, api::condition::kSuspended);
  if (suspended != nullptr && (before == nullptr || before->status != suspended->status ||
                               before->reason != suspended->reason)) {
    const bool slept = before != nullptr && before->status == api::ConditionStatus::kTrue;
    if (in.memory_problem && suspended->reason == in.memory_problem->reason) {
      control_plane_.Event(sandbox, true, suspended->reason, suspended->message);
    } else if (suspended->status == api::ConditionStatus::kTrue) {
      // One that has just failed to wake has not gone to sleep anew.
      const bool failed = in.outcome == Outcome::kFailed || in.outcome == Outcome::kBackOff;
      if (!slept && !failed)
        control_plane_.Event(sandbox, false, reasons::kSuspended, suspended->message);
    } else if (suspended->reason == reasons::kSnapshotFailed) {
      control_plane_.Event(sandbox, true, suspended->reason, suspended->message);
    }
  }
  if (in.outcome == Outcome::kSuspended || in.outcome == Outcome::kSuspending) return;
  if (ready->status == api::ConditionStatus::kTrue) {
    const bool was_ready = api::IsTrue(sandbox.status.conditions, api::condition::kReady);
    Remember(sandbox.uid, [](Remembered& kept) { kept.told.warning.clear(); });
    if (was_ready && sandbox.status.restart_count == status.restart_count) return;
    std::string note = "the guest answers";
    if (in.record.boot_to_ready_ms)
      note += ", " + std::to_string(*in.record.boot_to_ready_ms) + " ms after its start";
    const bool cloned = in.record.memory_generation == uint64_t{0};
    control_plane_.Event(sandbox, false,
                         !in.record.memory_generation      ? reasons::kStarted
                         : !cloned                         ? reasons::kResumed
                         : in.record.origin->boot_snapshot ? reasons::kStarted
                                                           : reasons::kCloned,
                         note);
    return;
  }
  if (ready->reason == reasons::kStarting || ready->reason == reasons::kStopping ||
      ready->reason == reasons::kTerminating)
    return;
  const std::string warning = ready->reason + ": " + ready->message;
  std::string last;
  Remember(sandbox.uid,
           [&](Remembered& kept) { last = std::exchange(kept.told.warning, warning); });
  if (last == warning) return;
  std::string note = ready->message;
  // Only the guest can say why it never answered, or fell.
  if (ready->reason == reasons::kGuestAgentTimeout || ready->reason == reasons::kGuestRebooted) {
    const std::string tail = machine_.ConsoleTail(in.record, 10);
    note += tail.empty() ? "; its console is silent" : "; the last of its console:\n" + tail;
  }
  const bool ended_well =
      in.outcome == Outcome::kStopped && in.record.ending && in.record.ending->success;
  control_plane_.Event(sandbox, !ended_well, ready->reason, note);
}

}  // namespace dormouse
