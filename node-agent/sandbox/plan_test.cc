#include "node-agent/sandbox/plan.h"

#include <gtest/gtest.h>

#include "node-agent/record/template_record.h"
#include "src/common/api/reasons.h"
#include "src/common/base/time.h"

namespace dormouse {
namespace {

using namespace std::chrono_literals;
using api::RestartPolicy;

const WallTime kNow = *ParseTime("2026-01-01T00:00:00Z");

Record Started() {
  Record record;
  record.incarnation = 1;
  record.vmm = ProcessHint{10, 20, "boot"};
  return record;
}

Observed Whole(VmmState vmm, GuestState guest = GuestState::kUnknown) {
  Observed seen;
  seen.disk = seen.net = Presence::kComplete;
  seen.cgroup = seen.vmm_directory = true;
  seen.vmm = vmm;
  seen.guest = guest;
  return seen;
}

std::string PlanOf(const Record& record, const Desired& desired, const Observed& seen) {
  return MakePlan(record, desired, seen, kNow).ToString();
}

TEST(PlanTest, ANewSandboxIsMadeInOneGo) {
  EXPECT_EQ(PlanOf({}, {}, {}),
            "record.save disk.store | disk.prepare net.prepare vmm.prepare | vmm.launch | "
            "vmm.create record.vmm | vmm.boot -> AwaitGuest");
}

TEST(PlanTest, EachStartIsAnIncarnationOfItsOwn) {
  EXPECT_EQ(MakePlan({}, {}, {}, kNow).record.incarnation, 1u);
  Record record = Started();
  record.vmm.reset();
  EXPECT_EQ(MakePlan(record, {}, Whole(VmmState::kAbsent), kNow).record.incarnation, 2u);
}

TEST(PlanTest, WhatTheRecordHasForgottenGoesBeforeAStart) {
  Observed seen;
  seen.stale_files = true;
  EXPECT_EQ(PlanOf({}, {}, seen),
            "record.save | files.prune | disk.prepare net.prepare vmm.prepare | vmm.launch | "
            "vmm.create record.vmm | vmm.boot -> AwaitGuest")
      << "a store may need the room of what goes";
  Record asleep;
  asleep.intent = Intent::kSuspended;
  asleep.sleeping = 3;
  EXPECT_TRUE(PlanOf(asleep, {}, seen).starts_with("record.save | files.prune | disk.restore | "));
  Record crashed;
  crashed.not_before = kNow + 5s;
  EXPECT_EQ(PlanOf(crashed, {}, seen), "files.prune -> BackOff");
  seen.stale_files = false;
  EXPECT_EQ(PlanOf(crashed, {}, seen), "-> BackOff");
}

// What an agent finds that was killed between any two steps.
TEST(PlanTest, ACreationThatWasCutShortIsCompletedFromWhatThereIs) {
  Observed disk_only;
  disk_only.disk = Presence::kPartial;
  EXPECT_EQ(PlanOf(Started(), {}, disk_only),
            "record.save | disk.prepare net.prepare vmm.prepare | vmm.launch | "
            "vmm.create record.vmm | vmm.boot -> AwaitGuest");
  Record launched;
  launched.incarnation = 1;
  EXPECT_EQ(PlanOf(launched, {}, Whole(VmmState::kForeign)),
            "record.save | vmm.kill | vmm.launch | vmm.create record.vmm | vmm.boot -> AwaitGuest")
      << "a VMM that the record does not know is not ours to trust";
  EXPECT_EQ(PlanOf(Started(), {}, Whole(VmmState::kStarting)),
            "vmm.create | vmm.boot -> AwaitGuest");
  EXPECT_EQ(PlanOf(Started(), {}, Whole(VmmState::kCreated)), "vmm.boot -> AwaitGuest");
  EXPECT_EQ(PlanOf(Started(), {}, Whole(VmmState::kRunning, GuestState::kSilent)), "-> AwaitGuest");
}

TEST(PlanTest, ARunningSandboxIsLeftAlone) {
  Desired working;
  working.has_workload = true;
  EXPECT_EQ(PlanOf(Started(), working, Whole(VmmState::kRunning, GuestState::kWorking)),
            "-> Running");
  EXPECT_EQ(PlanOf(Started(), {}, Whole(VmmState::kRunning, GuestState::kConfigured)),
            "-> Running");
}

TEST(PlanTest, TheWorkloadStartsOnceTheGuestHasItsIdentity) {
  Desired working;
  working.has_workload = true;
  EXPECT_EQ(PlanOf(Started(), working, Whole(VmmState::kRunning, GuestState::kAnswering)),
            "guest.configure | guest.start -> Running");
  EXPECT_EQ(PlanOf(Started(), {}, Whole(VmmState::kRunning, GuestState::kAnswering)),
            "guest.configure -> Running");
}

TEST(PlanTest, DeletingReleasesInOrderFromEveryState) {
  Desired gone;
  gone.deleting = true;
  EXPECT_EQ(PlanOf({}, gone, {}), "record.save | files.remove -> Released");
  EXPECT_EQ(
      PlanOf(Started(), gone, Whole(VmmState::kRunning, GuestState::kConfigured)),
      "record.save | vmm.kill | disk.release net.remove vmm.remove | files.remove -> Released");
  Record releasing = Started();
  releasing.intent = Intent::kRelease;
  Observed half;
  half.disk = Presence::kPartial;
  EXPECT_EQ(PlanOf(releasing, {}, half), "disk.release | files.remove -> Released");
}

TEST(PlanTest, ADeletionThatBeganIsNeverUndone) {
  Record releasing;
  releasing.intent = Intent::kRelease;
  EXPECT_EQ(PlanOf(releasing, {}, {}), "files.remove -> Released");
}

TEST(PlanTest, ADeletionWaitsForAWorkloadWithinItsGrace) {
  const Observed working = Whole(VmmState::kRunning, GuestState::kWorking);
  constexpr char kRelease[] =
      "record.save | vmm.kill | disk.release net.remove vmm.remove | files.remove -> Released";
  EXPECT_EQ(PlanOf(Started(), {.deleting = true}, working), "guest.stop -> Stopping");
  EXPECT_EQ(PlanOf(Started(), {.deleting = true, .stop_asked = true}, working), "-> Stopping");
  EXPECT_EQ(
      PlanOf(Started(), {.deleting = true, .stop_asked = true, .stop_overdue = true}, working),
      kRelease);
  EXPECT_EQ(PlanOf(Started(), {.deleting = true, .grace = 0s}, working), kRelease);
  EXPECT_EQ(PlanOf(Started(), {.deleting = true}, Whole(VmmState::kPaused, GuestState::kUnknown)),
            kRelease)
      << "what stands still is not woken to be told";
}

constexpr auto kModeStopped = api::OperatingMode::kStopped;

TEST(PlanTest, OneThatIsToBeStoppedPowersOffAndKeepsItsDisk) {
  constexpr char kOff[] = "record.save | vmm.kill | disk.release net.remove vmm.remove -> Stopped";
  const Observed idle = Whole(VmmState::kRunning, GuestState::kConfigured);
  EXPECT_EQ(PlanOf(Started(), {.mode = kModeStopped}, idle), "guest.stop -> Stopping");
  EXPECT_EQ(PlanOf(Started(), {.mode = kModeStopped, .stop_asked = true},
                   Whole(VmmState::kRunning, GuestState::kSilent)),
            "-> Stopping");
  EXPECT_EQ(PlanOf(Started(), {.mode = kModeStopped, .stop_asked = true}, Whole(VmmState::kAbsent)),
            "record.save | disk.release net.remove vmm.remove -> Stopped");
  EXPECT_EQ(
      PlanOf(Started(), {.mode = kModeStopped, .stop_asked = true, .stop_overdue = true}, idle),
      kOff);
  EXPECT_EQ(PlanOf(Started(), {.mode = kModeStopped, .grace = 0s}, idle), kOff);
  EXPECT_EQ(
      PlanOf(Started(), {.mode = kModeStopped}, Whole(VmmState::kRunning, GuestState::kFrozen)),
      "guest.thaw -> Proceed")
      << "nothing that is frozen can end";
  EXPECT_EQ(PlanOf({}, {.mode = kModeStopped}, {}), "record.save -> Stopped")
      << "made as a machine that is off";
  const Plan plan = MakePlan(Started(), {.mode = kModeStopped}, Whole(VmmState::kAbsent), kNow);
  EXPECT_TRUE(plan.record.stopped);
  EXPECT_EQ(plan.record.ending->reason, api::reasons::kStopped);
}

TEST(PlanTest, OneThatSleepsIsStoppedWithoutItsMemory) {
  Record asleep;
  asleep.intent = Intent::kSuspended;
  asleep.sleeping = 3;
  EXPECT_EQ(PlanOf(asleep, {.mode = kModeStopped}, {}),
            "disk.take | record.disk-only | files.prune -> Proceed");
  asleep.sleeping.reset();  // as the commit leaves it
  EXPECT_EQ(PlanOf(asleep, {.mode = kModeStopped}, {}), "record.save -> Stopped");
}

TEST(PlanTest, OneThatHasEndedStartsAgainWhenItIsAskedFor) {
  constexpr char kStart[] =
      "record.save disk.store | disk.prepare net.prepare vmm.prepare | vmm.launch | "
      "vmm.create record.vmm | vmm.boot -> AwaitGuest";
  Record ended;
  ended.intent = Intent::kStopped;
  ended.ending = Ending{std::string(api::reasons::kCompleted), "", true, 0, kNow};
  EXPECT_EQ(PlanOf(ended, {}, {}), "-> Stopped") << "nobody asked";
  EXPECT_EQ(PlanOf(ended, {.restarted_at = kNow}, {}), kStart);
  EXPECT_EQ(PlanOf(ended, {.restarted_at = kNow, .no_room = true}, {}), "-> NoRoom");
  EXPECT_EQ(PlanOf(ended, {.mode = kModeStopped}, {}), "record.save -> Stopped");
  const Record stopped = MakePlan(ended, {.mode = kModeStopped}, {}, kNow).record;
  EXPECT_EQ(stopped.ending->exit_code, 0) << "how it ended stays known";
  EXPECT_EQ(PlanOf(stopped, {.mode = api::OperatingMode::kSuspended}, {}), "-> Stopped");
  EXPECT_EQ(PlanOf(stopped, {}, {}), kStart);
  const Record again = MakePlan(ended, {.restarted_at = kNow}, {}, kNow).record;
  EXPECT_EQ(
      PlanOf(again, {.restarted_at = kNow}, Whole(VmmState::kRunning, GuestState::kConfigured)),
      "-> Running")
      << "once";
}

TEST(PlanTest, OneThatRunsIsStartedAgainWhenItIsAskedFor) {
  const Observed idle = Whole(VmmState::kRunning, GuestState::kConfigured);
  EXPECT_EQ(PlanOf(Started(), {.restarted_at = kNow}, idle), "guest.stop -> Stopping");
  EXPECT_EQ(
      PlanOf(Started(), {.restarted_at = kNow, .stop_asked = true, .stop_overdue = true}, idle),
      "record.save | vmm.kill -> Proceed");
  EXPECT_EQ(PlanOf(Started(), {.stop_asked = true}, Whole(VmmState::kAbsent)),
            "record.save -> Proceed")
      << "wanted again while it powered off: it starts, whatever its policy says";
}

Observed Crashed(bool success) {
  Observed seen = Whole(VmmState::kAbsent);
  seen.vmm_ending = Ending{std::string(api::reasons::kVmmCrashed), "killed by SIGKILL", success,
                           std::nullopt, kNow};
  return seen;
}

TEST(PlanTest, ACrashFollowsTheRestartPolicy) {
  Desired desired;
  const Plan never = MakePlan(Started(), desired, Crashed(false), kNow);
  EXPECT_EQ(never.ToString(), "record.save | disk.release net.remove vmm.remove -> Stopped");
  EXPECT_EQ(never.record.intent, Intent::kStopped);
  desired.restart_policy = RestartPolicy::kOnFailure;
  const Plan restart = MakePlan(Started(), desired, Crashed(false), kNow);
  EXPECT_EQ(restart.ToString(), "record.save -> BackOff");
  EXPECT_EQ(restart.record.restart_count, 1);
  EXPECT_EQ(restart.at, kNow) << "the first restart comes at once";
  EXPECT_EQ(MakePlan(Started(), desired, Crashed(true), kNow).outcome, Outcome::kStopped);
}

// What a VMM that answers nothing may still be doing must not be lost, whatever is wanted of it.
TEST(PlanTest, ASilentVmmIsWaitedForUntilItHangs) {
  Desired suspended;
  suspended.mode = api::OperatingMode::kSuspended;
  Desired full;
  full.node_disk_full = true;
  Desired capture;
  capture.capture_for.emplace();
  Record waking = Started();
  waking.sleeping = 3;
  for (const Desired& desired : {Desired{}, suspended, full, capture}) {
    EXPECT_EQ(PlanOf(Started(), desired, Whole(VmmState::kSilent)), "-> AwaitGuest");
  }
  EXPECT_EQ(PlanOf(waking, {}, Whole(VmmState::kSilent)), "-> AwaitGuest");
  EXPECT_EQ(PlanOf(Started(), {.deleting = true}, Whole(VmmState::kSilent)),
            "record.save | vmm.kill | disk.release net.remove vmm.remove | files.remove -> "
            "Released");
}

TEST(PlanTest, AVmmThatHangsIsEndedAndItsGuestBootsWhateverTheRestartPolicySays) {
  for (const VmmState state : {VmmState::kSilent, VmmState::kRunning}) {
    Observed seen = Whole(state);
    seen.vmm_hangs = "the VMM did not pause";
    const Plan plan = MakePlan(Started(), {.restart_policy = RestartPolicy::kNever}, seen, kNow);
    EXPECT_EQ(plan.ToString(), "record.save | vmm.kill -> BackOff");
    EXPECT_EQ(plan.at, kNow);
    EXPECT_EQ(plan.record.restart_count, 1);
    EXPECT_EQ(plan.record.ending->reason, api::reasons::kVmmHung);
    EXPECT_EQ(plan.record.ending->message, "the VMM did not pause");
  }
  Observed ended = Whole(VmmState::kAbsent);
  ended.vmm_hangs = "the VMM did not pause";
  Record record = Started();
  record.vmm.reset();
  EXPECT_EQ(PlanOf(record, {}, ended),
            "record.save | vmm.launch | vmm.create record.vmm | vmm.boot -> AwaitGuest");
}

TEST(PlanTest, AVmmThatHangsInAWakeLeavesTheMemoryToTheNext) {
  Record waking = Started();
  waking.intent = Intent::kSuspended;
  waking.sleeping = 3;
  Observed seen = Whole(VmmState::kSilent);
  seen.vmm_hangs = "the VMM has not answered";
  const Plan plan = MakePlan(waking, {}, seen, kNow);
  EXPECT_EQ(plan.record.sleeping, 3u);
  waking.intent = Intent::kRun;
  const Plan failed = MakePlan(waking, {}, seen, kNow);
  EXPECT_EQ(failed.ToString(),
            "record.save | vmm.kill | disk.release net.remove vmm.remove -> BackOff");
  EXPECT_EQ(failed.record.sleeping, 3u);
  EXPECT_EQ(failed.record.ending->reason, api::reasons::kResumeFailed);
}

TEST(PlanTest, RestartsBackOffAndARunThatLastedStartsAnew) {
  const PlanLimits limits;
  EXPECT_EQ(RestartDelay(0, limits), 0s);
  EXPECT_EQ(RestartDelay(1, limits), 10s);
  EXPECT_EQ(RestartDelay(3, limits), 40s);
  EXPECT_EQ(RestartDelay(50, limits), 300s);
  Desired desired;
  desired.restart_policy = RestartPolicy::kAlways;
  Record record = Started();
  record.restart_count = 4;
  record.started_at = kNow - 5s;
  EXPECT_EQ(MakePlan(record, desired, Crashed(false), kNow).at, kNow + 80s);
  record.started_at = kNow - 1h;
  EXPECT_EQ(MakePlan(record, desired, Crashed(false), kNow).at, kNow);
}

TEST(PlanTest, NoIncarnationStartsBeforeTheBackOffHasPassed) {
  Record record;
  record.incarnation = 1;
  record.not_before = kNow + 10s;
  EXPECT_EQ(PlanOf(record, {}, Whole(VmmState::kAbsent)), "-> BackOff");
  record.not_before = kNow;
  EXPECT_EQ(PlanOf(record, {}, Whole(VmmState::kAbsent)),
            "record.save | vmm.launch | vmm.create record.vmm | vmm.boot -> AwaitGuest");
}

TEST(PlanTest, AWorkloadsEndIsTheSandboxsEndAndItsExitCodeIsKept) {
  Observed seen = Whole(VmmState::kRunning, GuestState::kWorkloadEnded);
  seen.workload_exit_code = 3;
  const Plan plan = MakePlan(Started(), {.has_workload = true}, seen, kNow);
  EXPECT_EQ(plan.ToString(),
            "record.save | vmm.kill | disk.release net.remove vmm.remove -> Stopped");
  EXPECT_EQ(plan.record.ending->reason, api::reasons::kWorkloadFailed);
  EXPECT_EQ(plan.record.ending->exit_code, 3);
  EXPECT_FALSE(plan.record.ending->success);
}

TEST(PlanTest, AGuestRebootCountsAsARestart) {
  Observed seen = Whole(VmmState::kRunning, GuestState::kSilent);
  seen.guest_ending = Ending{std::string(api::reasons::kGuestRebooted), "the guest rebooted", false,
                             std::nullopt, kNow};
  Desired desired;
  desired.restart_policy = RestartPolicy::kOnFailure;
  const Plan plan = MakePlan(Started(), desired, seen, kNow);
  EXPECT_EQ(plan.ToString(), "record.save | vmm.kill -> BackOff");
  EXPECT_EQ(plan.record.restart_count, 1);
}

TEST(PlanTest, AGuestThatPoweredOffIsFinishedAndNotBootedAgain) {
  Observed seen = Whole(VmmState::kCreated);
  seen.guest_ending = Ending{std::string(api::reasons::kGuestPoweredOff), "the guest powered off",
                             true, std::nullopt, kNow};
  Desired desired;
  desired.restart_policy = RestartPolicy::kOnFailure;
  const Plan plan = MakePlan(Started(), desired, seen, kNow);
  EXPECT_EQ(plan.ToString(),
            "record.save | vmm.kill | disk.release net.remove vmm.remove -> Stopped");
  EXPECT_TRUE(plan.record.ending->success);
}

TEST(PlanTest, AGuestThatNeverAnswersEndsItsIncarnation) {
  Observed seen = Whole(VmmState::kRunning, GuestState::kSilent);
  seen.guest_timed_out = true;
  const Plan plan = MakePlan(Started(), {}, seen, kNow);
  EXPECT_EQ(plan.outcome, Outcome::kStopped);
  EXPECT_EQ(plan.record.ending->reason, api::reasons::kGuestAgentTimeout);
}

TEST(PlanTest, AFullNodePausesAndResumesItsGuests) {
  Desired full;
  full.node_disk_full = true;
  EXPECT_EQ(PlanOf(Started(), full, Whole(VmmState::kRunning, GuestState::kConfigured)),
            "vmm.pause -> Paused");
  EXPECT_EQ(PlanOf(Started(), full, Whole(VmmState::kPaused)), "-> Paused");
  EXPECT_EQ(PlanOf(Started(), {}, Whole(VmmState::kPaused)), "vmm.resume -> Proceed");
}

TEST(PlanTest, ALostDiskStopsTheSandboxAndDeletesNothing) {
  Observed seen = Whole(VmmState::kRunning, GuestState::kConfigured);
  seen.disk_lost = true;
  Desired desired;
  desired.restart_policy = RestartPolicy::kAlways;
  const Plan plan = MakePlan(Started(), desired, seen, kNow);
  EXPECT_EQ(plan.ToString(),
            "record.save | vmm.kill | disk.release net.remove vmm.remove -> Stopped");
  EXPECT_EQ(plan.record.ending->reason, api::reasons::kCowExhausted);
}

Record Clone(bool boot_snapshot) {
  TemplateRecord source;
  source.uid = *api::SandboxUid::Parse("0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a11");
  if (!boot_snapshot) source.name = "warm";
  return CloneOf(source);
}

Desired Capturing(bool boot_snapshot) {
  Desired desired;
  desired.has_workload = true;
  desired.capture_for = TemplateCapture{
      *api::SandboxUid::Parse("0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a11"), boot_snapshot, {}};
  return desired;
}

constexpr char kCapture[] =
    "record.save | capture.prepare | guest.freeze | vmm.pause | capture.state | capture.memory "
    "capture.disk | capture.sync | template.commit -> Proceed";

TEST(PlanTest, ACloneIsWokenFromItsTemplateAndIsSomebodyElseBeforeItsWorkloadStarts) {
  Desired desired;
  desired.has_workload = true;
  EXPECT_EQ(PlanOf(Clone(false), desired, {}),
            "record.save | disk.restore | disk.prepare net.prepare vmm.prepare | vmm.launch | "
            "vmm.restore record.vmm -> AwaitGuest");
  EXPECT_EQ(PlanOf(Clone(false), desired, Whole(VmmState::kRunning, GuestState::kFrozen)),
            "guest.thaw -> Proceed")
      << "not awake before it is configured";
  desired.thawed = true;
  Desired idle;
  idle.thawed = true;
  EXPECT_EQ(PlanOf(Clone(false), desired, Whole(VmmState::kRunning, GuestState::kConfigured)),
            "guest.configure | guest.start | record.awake | files.prune -> Running");
  EXPECT_EQ(PlanOf(Clone(false), idle, Whole(VmmState::kRunning, GuestState::kWorking)),
            "guest.configure | record.awake | files.prune -> Running")
      << "what was frozen with it goes on";
  EXPECT_EQ(PlanOf(Clone(true), desired, Whole(VmmState::kRunning, GuestState::kAnswering)),
            "guest.configure | guest.start | record.awake | files.prune -> Running");
}

TEST(PlanTest, AGuestThatWasCapturedAsItRanIsThawedAllTheSame) {
  Record asleep = Started();
  asleep.sleeping = 1;
  for (const GuestState guest : {GuestState::kAnswering, GuestState::kConfigured,
                                 GuestState::kWorking, GuestState::kWorkloadEnded}) {
    const Observed seen = Whole(VmmState::kRunning, guest);
    EXPECT_EQ(PlanOf(Clone(false), {}, seen), "guest.thaw -> Proceed")
        << "it takes a clock, random numbers and a name of its own, or says that it cannot";
    EXPECT_EQ(PlanOf(asleep, {}, seen), "guest.thaw -> Proceed");
  }
  Desired thawed;
  thawed.thawed = true;
  EXPECT_EQ(PlanOf(asleep, thawed, Whole(VmmState::kRunning, GuestState::kWorking)),
            "record.awake | files.prune -> Running");
  EXPECT_EQ(PlanOf(Started(), {}, Whole(VmmState::kRunning, GuestState::kWorking)), "-> Running")
      << "it has not slept";
}

TEST(PlanTest, AGuestThatRefusesItsThawIsEndedAndNotWokenUntilItIsAskedForAnew) {
  Desired refused;
  refused.thaw_refused = true;
  refused.thaw_failed = "its programs have seen who they are";
  const Observed working = Whole(VmmState::kRunning, GuestState::kWorking);
  Record asleep = Started();
  asleep.sleeping = 3;
  for (const Record& record : {asleep, Clone(false)}) {
    const Plan plan = MakePlan(record, refused, working, kNow);
    EXPECT_EQ(plan.ToString(),
              "record.save | vmm.kill | disk.release net.remove vmm.remove | files.prune -> Failed")
        << "what it has written goes, too";
    EXPECT_EQ(plan.record.sleeping, record.sleeping) << "its generation is whole";
    EXPECT_EQ(plan.record.ending->reason, api::reasons::kResumeFailed);
    EXPECT_EQ(plan.record.ending->message, refused.thaw_failed);
    // After it, and after an agent that died in the middle of it.
    EXPECT_EQ(PlanOf(plan.record, {}, {}), "-> Failed");
    EXPECT_EQ(PlanOf(plan.record, {.no_turn = true}, {}), "-> Failed");
    EXPECT_EQ(PlanOf(plan.record, {}, Whole(VmmState::kAbsent)),
              "disk.release net.remove vmm.remove -> Failed");
    EXPECT_EQ(PlanOf(plan.record, {.boot_from_disk = true}, {}),
              "disk.take | record.disk-only | files.prune -> Proceed");
    EXPECT_EQ(PlanOf(plan.record, {.mode = api::OperatingMode::kSuspended}, {}), "-> Suspended");
    EXPECT_TRUE(PlanOf(plan.record, {.generation = 1}, {})
                    .ends_with("vmm.restore record.vmm -> AwaitGuest"));
  }
  EXPECT_EQ(PlanOf(Started(), refused, working), "-> Running") << "it has not slept";
}

TEST(PlanTest, ATemplateIsNotCapturedFromAVmThatWasPausedForSomethingElse) {
  EXPECT_EQ(PlanOf(Started(), Capturing(false), Whole(VmmState::kPaused)), "vmm.resume -> Proceed")
      << "its guest may never have been frozen";
}

TEST(PlanTest, ATemplateIsCapturedFromWhatRunsAndTheSourceGoesOn) {
  const Desired desired = Capturing(false);
  EXPECT_EQ(PlanOf(Started(), desired, Whole(VmmState::kRunning, GuestState::kWorking)), kCapture);
  EXPECT_EQ(PlanOf(Started(), desired, Whole(VmmState::kRunning, GuestState::kConfigured)),
            "guest.start -> Running")
      << "what the user wanted to run is part of what is frozen";
  Desired after;
  EXPECT_EQ(PlanOf(Started(), after, Whole(VmmState::kPaused)), "vmm.resume -> Proceed");
  EXPECT_EQ(PlanOf(Started(), after, Whole(VmmState::kRunning, GuestState::kFrozen)),
            "guest.thaw -> Proceed");
}

TEST(PlanTest, ATemplateOfOneThatSleepsIsACopyOfItsFiles) {
  Record asleep;
  asleep.intent = Intent::kSuspended;
  asleep.sleeping = 3;
  Desired desired = Capturing(false);
  desired.mode = api::OperatingMode::kSuspended;
  EXPECT_EQ(PlanOf(asleep, desired, {}), "record.save | capture.copy | template.commit -> Proceed");
  EXPECT_EQ(PlanOf(asleep, desired, Whole(VmmState::kRunning)),
            "vmm.kill | disk.release net.remove vmm.remove -> Suspended")
      << "first it sleeps";
  asleep.sleeping.reset();
  EXPECT_EQ(PlanOf(asleep, desired, {}), "-> Suspended") << "it has no memory";
}

TEST(PlanTest, ASuspendThatIsAskedForComesBeforeATemplate) {
  Desired desired = Capturing(false);
  desired.mode = api::OperatingMode::kSuspended;
  const Plan plan =
      MakePlan(Started(), desired, Whole(VmmState::kRunning, GuestState::kWorking), kNow);
  EXPECT_EQ(plan.outcome, Outcome::kSuspended);
  EXPECT_FALSE(plan.record.capture_for);
}

TEST(PlanTest, ABootSnapshotIsTakenBeforeTheGuestIsToldAThing) {
  const Desired desired = Capturing(true);
  EXPECT_EQ(PlanOf(Started(), desired, Whole(VmmState::kRunning, GuestState::kAnswering)),
            kCapture);
  EXPECT_EQ(PlanOf(Started(), desired, Whole(VmmState::kRunning, GuestState::kWorking)),
            "-> Running")
      << "too late: the tenant is in it";
}

TEST(PlanTest, AWakeThatHasNotBegunWaitsForItsTurn) {
  Desired desired;
  desired.no_turn = true;
  Record asleep;
  asleep.intent = Intent::kSuspended;
  asleep.sleeping = 3;
  EXPECT_EQ(PlanOf(asleep, desired, {}), "-> InLine");
  Record clone;
  clone.sleeping = 0;
  clone.origin.emplace();
  EXPECT_EQ(PlanOf(clone, desired, {.recorded = false}), "record.save -> InLine");
  EXPECT_EQ(PlanOf(clone, desired, {}), "-> InLine");
  Record waking = asleep;
  waking.intent = Intent::kRun;
  waking.vmm = ProcessHint{10, 20, "boot"};
  EXPECT_EQ(PlanOf(waking, desired, Whole(VmmState::kStarting)), "vmm.restore -> AwaitGuest")
      << "one that has begun goes on";
  EXPECT_TRUE(PlanOf({}, desired, {}).ends_with("vmm.boot -> AwaitGuest"))
      << "nor does a boot wait";
  desired.mode = api::OperatingMode::kSuspended;
  EXPECT_EQ(PlanOf(asleep, desired, {}), "-> Suspended");
}

TEST(PlanTest, MemoryIsGivenUpOnlyWhereAWakeHasFailedAndItsUserAsksForIt) {
  Record asleep;
  asleep.intent = Intent::kSuspended;
  asleep.sleeping = 3;
  Desired desired;
  desired.boot_from_disk = true;
  EXPECT_TRUE(PlanOf(asleep, desired, {}).ends_with("vmm.restore record.vmm -> AwaitGuest"))
      << "first it is tried";
  desired.wake_failed = true;
  EXPECT_EQ(PlanOf(asleep, desired, {}), "disk.take | record.disk-only | files.prune -> Proceed");
  desired.no_room = true;
  EXPECT_EQ(PlanOf(asleep, desired, {}), "-> NoRoom") << "nothing is lost for a boot to come";
  desired.no_room = false;
  Desired asked_not = desired;
  asked_not.boot_from_disk = false;
  EXPECT_TRUE(PlanOf(asleep, asked_not, {}).ends_with("vmm.restore record.vmm -> AwaitGuest"));
  Desired suspended = desired;
  suspended.mode = api::OperatingMode::kSuspended;
  EXPECT_EQ(PlanOf(asleep, suspended, {}), "-> Suspended");

  Record waking = asleep;
  waking.intent = Intent::kRun;
  waking.vmm = ProcessHint{10, 20, "boot"};
  EXPECT_EQ(PlanOf(waking, desired, Whole(VmmState::kStarting)),
            "vmm.kill | disk.release | disk.take | record.disk-only | files.prune -> Proceed")
      << "what was being woken goes first";
  waking.disk_boot_spent = true;
  EXPECT_EQ(PlanOf(waking, desired, Whole(VmmState::kStarting)), "vmm.restore -> AwaitGuest")
      << "it was asked for an earlier sleep";
}

TEST(PlanTest, AnAnnotationThatStandsWhenItFallsAsleepIsSpent) {
  Desired desired;
  desired.mode = api::OperatingMode::kSuspended;
  desired.boot_from_disk = true;
  const Observed running = Whole(VmmState::kRunning, GuestState::kConfigured);
  EXPECT_TRUE(MakePlan(Started(), desired, running, kNow).record.disk_boot_spent);
  desired.boot_from_disk = false;
  EXPECT_FALSE(MakePlan(Started(), desired, running, kNow).record.disk_boot_spent);
}

TEST(PlanTest, ABootSnapshotThatDoesNotAnswerIsBootedInstead) {
  Observed silent = Whole(VmmState::kRunning, GuestState::kSilent);
  silent.guest_timed_out = true;
  const Plan plan = MakePlan(Clone(true), {}, silent, kNow);
  EXPECT_EQ(plan.ToString(), "record.save | vmm.kill -> Proceed");
  EXPECT_FALSE(plan.record.sleeping || plan.record.origin);
  EXPECT_EQ(MakePlan(Clone(false), {}, silent, kNow).outcome, Outcome::kBackOff)
      << "a template is what was asked for: it is tried again";
}

}  // namespace
}  // namespace dormouse
