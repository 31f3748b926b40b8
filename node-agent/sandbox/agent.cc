#include "node-agent/sandbox/agent.h"

#include <algorithm>
#include <thread>

#include "src/common/api/quantity.h"
#include "src/common/api/reasons.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

using namespace std::chrono_literals;
using kube::ReconcileResult;
namespace reasons = api::reasons;

// A plan that is never satisfied is a bug; the queue's back-off keeps it from being a busy loop.
constexpr int kMaxRounds = 8;
constexpr auto kGuestPoll = 3ms;
// Of a guest that cannot be waited for: one short question each time.
constexpr auto kWorkloadPoll = 1s;
// A guest that was restored answers within a second or two, where it does.
constexpr auto kLongestTurn = 10s;
// A VMM answers nothing while it writes its memory, or reads it (ApiClient::Snapshot, Restore).
constexpr int64_t kSlowestRam = 64 << 20;  // bytes per second

bool EndsHere(Outcome outcome) {
  return outcome == Outcome::kSuspended || outcome == Outcome::kNoRoom ||
         outcome == Outcome::kInLine || outcome == Outcome::kBackOff ||
         outcome == Outcome::kStopped || outcome == Outcome::kPaused ||
         outcome == Outcome::kReleased || outcome == Outcome::kFailed;
}

// The guest answers, and it will be the same answer each time: its programs have seen who they are,
// or its agent is of before there were thaws.
bool RefusesToThaw(Step failed, const Error& error) {
  return failed == Step::kThawGuest &&
         (error.code() == ErrorCode::kConflict || error.code() == ErrorCode::kUnsupported);
}

bool Has(const Plan& plan, Step step) {
  return std::any_of(plan.stages.begin(), plan.stages.end(),
                     [step](const Stage& stage) { return stage.front() == step; });
}
bool Suspends(const Plan& plan) {
  return Has(plan, Step::kCommitSuspend);
}

// A capture's plan begins with the record that says what is about to be made.
bool FailedToCapture(const Plan& plan, Step failed) {
  return IsCapture(failed) ||
         (failed == Step::kSaveIntent && (Suspends(plan) || Has(plan, Step::kCommitTemplate)));
}

}  // namespace

Agent::Agent(AgentOptions options, Machine& machine, RecordStore& records, TemplateStore& templates,
             kube::Store<api::Sandbox>& sandboxes, ControlPlane& control_plane, Enqueue enqueue,
             Enqueue template_changed, const Clock& clock)
    : options_(std::move(options)),
      machine_(machine),
      records_(records),
      templates_(templates),
      sandboxes_(sandboxes),
      own_writes_(sandboxes),
      control_plane_(control_plane),
      enqueue_(std::move(enqueue)),
      template_changed_(std::move(template_changed)),
      clock_(clock),
      turns_(options_.wakes_at_once, kLongestTurn, clock),
      idle_(clock) {}

Result<> Agent::Adopt() {
  // First: all that touches such a disk waits for ever, be it the end of a VMM that nobody knows.
  DORMOUSE_TRY(machine_.ResumeDisks());
  DORMOUSE_ASSIGN(const auto loaded, records_.Load());
  DORMOUSE_TRY(templates_.Load());
  for (const auto* unread : {&loaded.corrupt, &loaded.newer}) {
    for (const api::SandboxUid& uid : *unread) {
      if (const auto slot = machine_.SlotInUse(uid)) records_.PinSlot(uid, *slot);
    }
  }
  int running = 0;
  for (const Record& record : records_.All()) {
    if (record.intent != Intent::kRun || !record.vmm) continue;
    if (auto watched = machine_.Watch(record)) {
      ++running;
    } else {
      log::Info("a VMM ended while the agent was away",
                {{"sandbox", record.key().ToString()}, {"detail", watched.error().message()}});
    }
  }
  log::Info("adopted what is on this node", {{"records", records_.All().size()},
                                             {"running", running},
                                             {"unreadable", loaded.corrupt.size()},
                                             {"newer", loaded.newer.size()},
                                             {"foreign", loaded.foreign.size()}});
  DORMOUSE_ASSIGN(const auto leaks, Sweep(true));
  for (const Leak& leak : leaks) {
    log::Warning("something of ours that no sandbox accounts for stays",
                 {{"kind", leak.kind}, {"name", leak.name}});
  }
  return {};
}

std::vector<std::string> Agent::KnownUids() const {
  std::vector<std::string> uids;
  for (const api::SandboxUid& uid : records_.KnownUids()) uids.push_back(uid.text());
  for (const auto& sandbox : sandboxes_.List()) uids.push_back(sandbox->uid.text());
  std::sort(uids.begin(), uids.end());
  uids.erase(std::unique(uids.begin(), uids.end()), uids.end());
  return uids;
}

const api::Sandbox& Agent::Newer(const api::Sandbox& cached,
                                 const std::optional<api::Sandbox>& ours) {
  if (ours && ours->uid == cached.uid &&
      ours->meta.resource_version.IsAtLeast(cached.meta.resource_version)) {
    return *ours;
  }
  return cached;
}

void Agent::OnMachineChanged(const std::string& uid) {
  if (const auto parsed = api::SandboxUid::Parse(uid)) {
    Remember(*parsed, [](Remembered& kept) { kept.look.Forget(); });
  }
  enqueue_(uid);
}

Result<ReconcileResult> Agent::Reconcile(const std::string& uid_text) {
  DORMOUSE_ASSIGN(const auto uid, api::SandboxUid::Parse(uid_text));
  if (records_.IsForeign(uid)) return ReconcileResult::Done();
  const bool ahead = own_writes_.AreAhead(uid_text);
  const auto cached = sandboxes_.GetByUid(uid_text);
  auto record = records_.Find(uid);
  if (!cached || cached->meta.deletion_time) LeaveTurn(uid);
  if (!cached) {
    idle_.Forget(uid);
    if (record) return ReconcileOrphan(*record);
    {
      std::lock_guard lock(mutex_);
      remembered_.erase(uid);
    }
    return records_.DropUnrecorded(uid).map([] { return ReconcileResult::Done(); });
  }
  if (!ahead) {
    Remember(uid, [&](Remembered& kept) { kept.told.CacheShows(cached->meta.resource_version); });
  }
  const api::Sandbox sandbox =
      Recall(uid, [&](const Remembered& kept) { return Newer(*cached, kept.told.object); });
  if (records_.IsNewer(uid)) return ReconcileNewer(sandbox);
  if (sandbox.meta.deletion_time) return ReconcileDeletion(sandbox);
  if (records_.IsCorrupt(uid)) return ReconcileUnreadable(sandbox);
  return ReconcileWanted(sandbox, std::move(record));
}

Result<ReconcileResult> Agent::ReconcileWanted(const api::Sandbox& sandbox,
                                               std::optional<Record> record) {
  if (record && record->orphaned_at) {
    // etcd was restored to before it was placed here, and it was placed here again.
    log::Info("the object of a sandbox is back, and it goes on",
              {{"sandbox", record->key().ToString()}, {"uid", record->uid.text()}});
    record->orphaned_at.reset();
    // Its memory may be given to others by now: it starts when there is room, as one that sleeps.
    if (record->intent == Intent::kStopped && !record->ending) record->intent = Intent::kSuspended;
    DORMOUSE_TRY(records_.Save(*record));
  }
  if (record) return Drive(sandbox, std::move(*record), false);
  if (!sandbox.meta.HasFinalizer(api::kCleanupFinalizer)) {
    return Refuse(sandbox,
                  Error(ErrorCode::kPermission,
                        "it has a node and no finalizer: the controller did not place it"),
                  reasons::kNotFinalized);
  }
  if (disk_state_ != Machine::DiskState::kFine) {
    return Refuse(sandbox,
                  Error(ErrorCode::kNoSpace, "node " + options_.node_name + " is short of disk"));
  }
  TemplateStore::Ptr held;
  auto resolved = Resolve(sandbox, &held);
  if (!resolved) return Refuse(sandbox, resolved.error());
  resolved->uid = sandbox.uid;
  resolved->restarted_at = sandbox.spec.restarted_at;
  const bool starts = sandbox.spec.operating_mode == api::OperatingMode::kRunning;
  if (starts && !TakeRoomFor(*resolved)) {
    return Refuse(
        sandbox, Error(ErrorCode::kNoSpace, "node " + options_.node_name + " has no room for " +
                                                api::FormatBytes(resolved->resources.memory_bytes) +
                                                " memory"));
  }
  const auto start = [&]() -> Result<ReconcileResult> {
    DORMOUSE_ASSIGN(resolved->slot, records_.ReserveSlot(sandbox.uid, machine_.SlotLimit()));
    resolved->cluster_id = records_.cluster_id();
    resolved->ns = sandbox.meta.ns;
    resolved->name = sandbox.meta.name;
    return Drive(sandbox, *resolved, true, std::move(held));
  };
  const auto started = start();
  // From now on its record counts, or nothing was made.
  LeaveRoom(*resolved);
  return started;
}

Desired Agent::DesiredOf(const api::Sandbox& sandbox, const Record& record) {
  Desired desired;
  desired.deleting = sandbox.meta.deletion_time.has_value();
  desired.mode = sandbox.spec.operating_mode;
  desired.generation = sandbox.meta.generation;
  if (api::IsIdleSuspended(sandbox) && record.intent == Intent::kRun && !record.sleeping &&
      IsBusyAfterAll(record)) {
    // The controller reads in its status that something happened, and takes the wish back.
    desired.mode = api::OperatingMode::kRunning;
  }
  desired.has_workload = !sandbox.spec.workload.empty();
  desired.restart_policy = api::RestartPolicyOf(
      sandbox.spec, desired.has_workload || (record.origin && record.origin->has_workload));
  desired.restarted_at = sandbox.spec.restarted_at;
  desired.grace = sandbox.spec.termination_grace;
  desired.node_disk_full = StoppedByDisk(record.uid).has_value();
  desired.boot_from_disk = AsksToBootFromDisk(sandbox);
  if (record.intent == Intent::kSuspended || record.intent == Intent::kStopped) {
    const bool stays = record.intent == Intent::kStopped
                           ? !StartsAgain(record, desired)
                           : IsRefused(record, desired) && !GivesUpMemory(record, desired);
    if (desired.deleting || desired.mode != api::OperatingMode::kRunning || stays) {
      LeaveRoom(record);
    } else {
      desired.no_room = !TakeRoomFor(record);
    }
  }
  desired.no_turn = !TakeTurn(sandbox, record);
  desired.hold_suspend = Recall(sandbox.uid, [&](const Remembered& kept) {
    return !kept.commit_in_doubt && kept.suspends.Hold(clock_.Now()) > 0ns;
  });
  return desired;
}

void Agent::RecallVmm(const api::SandboxUid& uid, Desired* desired) const {
  Recall(uid, [&](const Remembered& kept) {
    desired->thawed = kept.vmm.thawed();
    desired->thaw_failed = kept.vmm.thaw_failed();
    desired->stop_asked = kept.vmm.IsStopAsked();
    desired->stop_overdue = kept.vmm.IsStopOverdue(clock_.Now());
  });
}

std::optional<std::chrono::nanoseconds> Agent::SinceLaunch(const Record& record) const {
  return Recall(record.uid, [&](const Remembered& kept) { return kept.vmm.Since(clock_.Now()); });
}

bool Agent::CommitIsInDoubt(const Record& record) const {
  return Recall(record.uid, [](const Remembered& kept) { return kept.commit_in_doubt; });
}

Result<Observed> Agent::Look(const Record& record, bool is_new) {
  // Intent before act: without a record nothing was made.
  if (is_new) return Observed{.recorded = false};
  auto seen = Recall(record.uid, [&](const Remembered& kept) {
    return kept.look.Within(options_.resync, clock_.Now());
  });
  if (seen) {
    if (seen->vmm == VmmState::kRunning) machine_.ObserveGuest(record, &*seen);
  } else {
    DORMOUSE_ASSIGN(seen, machine_.Observe(record));
    Remember(record.uid, [&](Remembered& kept) {
      kept.look.Forget();
      if (seen->vmm == VmmState::kRunning) kept.look.Note(*seen, clock_.Now());
      if (seen->vmm != VmmState::kAbsent) kept.vmm.Found(clock_.Now());
      kept.vmm.Looked(seen->vmm == VmmState::kSilent, clock_.Now());
      const std::chrono::seconds for_ram(record.resources.memory_bytes / kSlowestRam);
      seen->vmm_hangs = kept.vmm.WhyItHangs(options_.vmm_timeout + for_ram, clock_.Now());
    });
  }
  if (!Answers(seen->guest) && !record.started_at && seen->vmm == VmmState::kRunning)
    seen->guest_timed_out = SinceLaunch(record) >= options_.guest_timeout;
  return *seen;
}

Result<> Agent::KeepEgress(const api::SandboxSpec& spec, const std::string& rules,
                           const Record& record, const Observed& seen) {
  if (seen.net == Presence::kAbsent || seen.egress == rules) return {};
  DORMOUSE_TRY(machine_.UpdateNetwork(spec, record));
  // Only what was seen counts: until the next look that it is there is what the kernel answered.
  Remember(record.uid, [&](Remembered& kept) { kept.look.NoteEgress(rules); });
  return {};
}

Result<bool> Agent::FindAnotherWay(const Plan& plan, Step failed, const Error& error,
                                   Record* record, Desired* desired) {
  const auto warn = [&](const char* what) {
    log::Warning(what, {{"sandbox", record->key().ToString()},
                        {"step", StepName(failed)},
                        {"error", error.message()}});
  };
  // v53.0 can wait for its own vCPUs for ever: docs/snapshots.md, "Suspend".
  const bool hangs = failed == Step::kPauseVm && error.code() == ErrorCode::kDeadline;
  if (hangs) {
    Remember(record->uid, [&](Remembered& kept) {
      kept.vmm.PauseHung("the VMM did not pause, and was ended: " + error.message());
    });
  }
  if (FailedToCapture(plan, failed) && plan.record.capture_for) {
    TemplateCaptureFailed(plan.record, error);
    return true;
  }
  if (FailedToCapture(plan, failed) && desired->mode == api::OperatingMode::kSuspended &&
      !CommitIsInDoubt(*record)) {
    // Failing keeps the sandbox: it runs on, and says so.
    Remember(record->uid, [&](Remembered& kept) {
      kept.suspends.Note(
          hangs
              ? Problem{std::string(reasons::kVmmHung),
                        error.message() + ": the VMM was ended, and its guest boots from its disk"}
              : Problem{std::string(reasons::kSnapshotFailed), error.message()},
          options_.capture_retry, clock_.Now());
    });
    desired->hold_suspend = true;
    warn("a capture failed, and the sandbox runs on");
    return true;
  }
  if (hangs) return true;
  if ((failed == Step::kConfigureGuest || failed == Step::kStartWorkload) &&
      error.code() == ErrorCode::kInvalid) {
    desired->guest_refuses = "the guest cannot be what is asked for: " + error.message();
    warn("a guest refuses what its spec asks for; its VM is ended");
    return true;
  }
  if (failed == Step::kStopGuest) {
    warn("a guest could not be told to power off; it is cut off");
    Remember(record->uid, [&](Remembered& kept) { kept.vmm.StopAsked(clock_.Now()); });
    return true;
  }
  if (failed == Step::kThawGuest) {
    Remember(record->uid, [&](Remembered& kept) { kept.vmm.ThawFailed(error.message()); });
  }
  const bool refused = RefusesToThaw(failed, error);
  if (!IsRestore(failed) && !refused) return false;
  if (record->IsCloning() && record->origin->boot_snapshot) {
    warn("a boot snapshot cannot be started from, and goes; the sandbox boots");
    DORMOUSE_TRY(GiveUpBootSnapshot(record));
    return true;
  }
  if (!NoteFailedWake(*record, failed, error)) return false;
  desired->wake_failed = true;
  if (refused) {
    desired->thaw_refused = true;
    warn("a guest cannot be thawed; its VM is ended");
    return true;
  }
  return GivesUpMemory(*record, *desired);
}

Result<ReconcileResult> Agent::Drive(const api::Sandbox& sandbox, Record record, bool is_new,
                                     TemplateStore::Ptr held) {
  const MonotonicTime began = clock_.Now();
  // One that failed was of an earlier wish: the next is tried at once.
  if (sandbox.spec.operating_mode == api::OperatingMode::kRunning) ForgetFailedSuspends(record);
  DORMOUSE_TRY(NoticeDiskBootIsOver(sandbox, &record));
  Desired desired = DesiredOf(sandbox, record);
  StatusInputs in;
  Plan plan;
  std::optional<Error> failure, egress_failure;
  const std::string rules = machine_.EgressRules(sandbox.spec);
  for (int round = 0; round < kMaxRounds; ++round) {
    auto seen = Look(record, is_new);
    std::optional<Step> failed;
    Result<> carried;
    if (seen) {
      in.observed = *seen;
      if (!desired.deleting && !egress_failure) {
        if (auto kept = KeepEgress(sandbox.spec, rules, record, *seen); !kept)
          egress_failure = kept.error();
      }
      desired.capture_for = CaptureWantedFrom(sandbox.spec, record);
      desired.wake_failed = WhyWakeFailed(record).has_value();
      RecallVmm(record.uid, &desired);
      plan = MakePlan(record, desired, *seen, clock_.WallNow(), options_.limits);
      if (Suspends(plan)) {
        StatusInputs begun = in;
        begun.record = record;
        begun.outcome = Outcome::kSuspending;
        DORMOUSE_TRY(Tell(sandbox, std::move(begun)));
      }
      carried = Carry(plan, sandbox.spec, &record, &failed);
      // It was seen before its VM was ended, and another write would put that right.
      if (carried && Has(plan, Step::kKillVmm)) in.observed.guest = GuestState::kUnknown;
      AnnounceDiskBoot(sandbox, plan, record);
      if (carried && plan.outcome == Outcome::kInLine) {
        // Only a turn changes what there is of it.
        seen->recorded = true;
        seen->stale_files = false;
        Remember(record.uid, [&](Remembered& kept) { kept.look.Note(*seen, clock_.Now()); });
      }
      is_new = false;
      held.reset();
    } else {
      carried = Fail(seen.error());
    }
    if (!carried) {
      failure = carried.error();
      in.problem = failed ? ProblemOf(failed, *failure)
                          : Problem{std::string(reasons::kHostError), failure->message()};
      Remember(record.uid, [](Remembered& kept) { kept.look.Forget(); });
      if (failed) {
        DORMOUSE_ASSIGN(const bool found,
                        FindAnotherWay(plan, *failed, *failure, &record, &desired));
        if (found) {
          failure.reset();
          in.problem.reset();
          continue;
        }
      }
      break;
    }
    if (EndsHere(plan.outcome)) break;
    if (!plan.stages.empty()) continue;
    if (plan.outcome == Outcome::kRunning) break;
    // Nothing to do but to wait for the guest: shortly here, where most answer, then from the
    // queue.
    if (clock_.Now() - began >= options_.inline_wait) break;
    std::this_thread::sleep_for(kGuestPoll);
    --round;
  }
  if (failure || (plan.outcome != Outcome::kAwaitGuest && plan.outcome != Outcome::kInLine))
    LeaveTurn(record.uid);
  // Its VM has had it until now.
  if (!failure && plan.outcome == Outcome::kFailed) LeaveRoom(record);
  if (plan.outcome == Outcome::kReleased && !failure) {
    DORMOUSE_ASSIGN(const Observed left, machine_.Observe(record));
    if (!NothingLeft(left))
      failure = Error(ErrorCode::kBusy, "released, yet something of the sandbox is still there");
    in.released = !failure.has_value();
  }
  const bool first_ready = plan.outcome == Outcome::kRunning && !failure && !record.started_at;
  if (first_ready) {
    record.started_at = clock_.WallNow();
    record.was_ready = true;
    if (const auto since = SinceLaunch(record))
      record.boot_to_ready_ms =
          std::chrono::duration_cast<std::chrono::milliseconds>(*since).count();
  }
  if (egress_failure && !failure) {
    failure = egress_failure;
    in.problem = ProblemOf(Step::kPrepareNet, *failure);
  }
  const bool working =
      plan.outcome == Outcome::kRunning && in.observed.guest == GuestState::kWorking;
  if (sandbox.spec.idle && !desired.deleting && !failure && plan.outcome == Outcome::kRunning) {
    idle_.Watch(record.uid, sandbox.spec.idle->timeout);
    in.idle = idle_.Of(record.uid);
  } else {
    idle_.Forget(record.uid);
  }
  in.record = record;
  in.outcome = failure && !EndsHere(plan.outcome) ? Outcome::kProceed : plan.outcome;
  if (failure && Suspends(plan) && !record.sleeping) in.outcome = Outcome::kSuspending;
  Remember(record.uid, [&](Remembered& kept) { kept.plan = plan.ToString(); });
  auto told = Tell(sandbox, std::move(in));
  // After the status: the user waits for that, and nothing is lost if we die in between.
  if (first_ready) DORMOUSE_TRY(records_.Save(record));
  const bool awaited = working && machine_.AwaitWorkload(record).has_value();
  if (failure) return Fail(*failure);
  if (!told) return Fail(told.error());
  auto next = NextLook(plan.outcome, plan, record);
  if (working && !awaited) next = kWorkloadPoll;
  if (plan.outcome == Outcome::kRunning && desired.hold_suspend) {
    const auto hold = Recall(
        record.uid, [&](const Remembered& kept) { return kept.suspends.Hold(clock_.Now()); });
    next = std::clamp<std::chrono::nanoseconds>(hold, 1ms, next);
  }
  return next.count() > 0 ? ReconcileResult::RequeueAfter(next) : ReconcileResult::Done();
}

std::chrono::nanoseconds Agent::NextLook(Outcome outcome, const Plan& plan,
                                         const Record& record) const {
  switch (outcome) {
    case Outcome::kAwaitGuest: {
      const auto waited = SinceLaunch(record).value_or(0ns);
      if (record.started_at) return 2s;
      return std::clamp<std::chrono::nanoseconds>(waited / 20, 10ms, 250ms);
    }
    case Outcome::kBackOff:
      return std::max<std::chrono::nanoseconds>(plan.at ? *plan.at - clock_.WallNow() : 0s, 1ms);
    case Outcome::kRunning:
      return options_.resync;
    case Outcome::kInLine:
      return kLongestTurn;
    case Outcome::kPaused:
    case Outcome::kNoRoom:
      return 2s;
    case Outcome::kProceed:
    case Outcome::kSuspending:
    case Outcome::kStopping:
      return 1s;
    case Outcome::kSuspended:
    case Outcome::kStopped:
    case Outcome::kReleased:
    case Outcome::kFailed:
      return 0s;
  }
  return 0s;
}

}  // namespace dormouse
