// Suspend and wake, as a user sees them, with the agent dying around every step.
#include "node-agent/host/test_support.h"
#include "node-agent/sandbox/agent_test_parts.h"

namespace dormouse {
namespace {

const std::vector<std::string> kSuspendSteps = {
    "record.save",    "capture.prepare", "guest.freeze", "vmm.pause",        "capture.state",
    "capture.memory", "capture.disk",    "capture.sync", "record.suspended", "vmm.kill",
    "disk.release",   "net.remove",      "vmm.remove",   "files.prune"};
const std::vector<std::string> kWakeSteps = {
    "record.save", "disk.restore", "disk.prepare", "net.prepare",  "vmm.prepare", "vmm.launch",
    "record.vmm",  "vmm.restore",  "guest.thaw",   "record.awake", "files.prune"};

class AgentSleepTest : public AgentTest {
 protected:
  AgentSleepTest() {
    Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command = {"sleep", "1"}; });
    Settle();
  }
  void Suspend() { Wish(api::OperatingMode::kSuspended); }
  void Wake() { Wish(api::OperatingMode::kRunning); }
  // Others, beside the fixture's own.
  static api::SandboxUid Sleeper(int number) {
    return *api::SandboxUid::Parse("0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7b0" + std::to_string(number));
  }
  void PutSleeper(int number, int64_t mib, api::OperatingMode mode) {
    api::Sandbox other = *control_plane_.live;
    other.meta.name = "sleeper-" + std::to_string(number);
    other.meta.uid = Sleeper(number).text();
    other.uid = Sleeper(number);
    other.status = {};
    other.status.node_name = "node-1";
    other.spec.resources = api::Resources{1, mib << 20};
    other.spec.operating_mode = mode;
    other.meta.generation = mode == api::OperatingMode::kRunning ? 2 : 1;
    other.meta.resource_version = kube::ResourceVersion(std::to_string(version_ += 10));
    Put(other);
  }
  bool Is(const char* condition) {
    return api::IsTrue(control_plane_.live->status.conditions, condition);
  }
  void ExpectAsleep() {
    EXPECT_EQ(Phase(), "Suspended");
    EXPECT_TRUE(Is("Suspended"));
    EXPECT_FALSE(Is("Ready"));
    EXPECT_TRUE(vm().Nothing()) << "asleep it holds nothing but files";
    ASSERT_EQ(vm().generations.size(), 1u) << "one generation, and nothing that was cut short";
    EXPECT_TRUE(vm().generations.begin()->second.whole);
  }
  void ExpectAwake() {
    EXPECT_EQ(Phase(), "Running");
    EXPECT_TRUE(Is("Ready"));
    EXPECT_FALSE(Is("Suspended"));
    EXPECT_FALSE(vm().frozen || vm().paused);
    EXPECT_EQ(vm().workload, FakeMachine::Workload::kRunning) << "where it was";
  }

 private:
  int version_ = 1000;
};

TEST_F(AgentSleepTest, SuspendKeepsTheMemoryAndFreesTheRestWithTwoWrites) {
  const size_t before = control_plane_.writes.size();
  Suspend();
  ASSERT_TRUE(Reconcile());
  ExpectAsleep();
  EXPECT_EQ(control_plane_.writes.size(), before + 2);
  EXPECT_EQ(control_plane_.writes[before].phase, "Suspending");
  EXPECT_EQ(control_plane_.live->status.snapshot->generation, 1);
  EXPECT_EQ(control_plane_.events.back().substr(0, 17), "Normal Suspended:");
}

TEST_F(AgentSleepTest, TheStatusSaysWhatEachStageOfTheSuspendTookAlsoAfterAnAgentsRestart) {
  const std::pair<Step, std::chrono::milliseconds api::CaptureStages::*> stages[] = {
      {Step::kPrepareCapture, &api::CaptureStages::prepare},
      {Step::kFreezeGuest, &api::CaptureStages::freeze},
      {Step::kPauseVm, &api::CaptureStages::pause},
      {Step::kCaptureState, &api::CaptureStages::state},
      {Step::kCaptureMemory, &api::CaptureStages::memory},
      {Step::kCaptureDisk, &api::CaptureStages::disk},
      {Step::kSyncCapture, &api::CaptureStages::sync}};
  const auto told = [&](api::CaptureStages expected) {
    const auto& snapshot = control_plane_.live->status.snapshot;
    ASSERT_TRUE(snapshot && snapshot->stages);
    api::CaptureStages took = *snapshot->stages;
    // Side by side with the other, which may wait for it or not.
    if (expected.memory != 0ms) took.disk = 0ms;
    if (expected.disk != 0ms) took.memory = 0ms;
    EXPECT_EQ(took, expected);
  };
  for (const auto& [slow, took] : stages) {
    SCOPED_TRACE(StepName(slow));
    machine_.meanwhile = [this, slow = slow](Step step) {
      if (step == slow) clock_.Advance(40ms);
    };
    Suspend();
    ASSERT_TRUE(Reconcile());
    api::CaptureStages expected;
    expected.*took = 40ms;
    told(expected);
    Change([](api::Sandbox& sandbox) { sandbox.status.snapshot.reset(); });
    Restart();
    Settle();
    told(expected);
    Wake();
    Settle();
  }
}

TEST_F(AgentSleepTest, TheMetricsCountWhatACommittedSuspendWroteAndHowLongItStoodStill) {
  const auto counted = [](const std::string& metric) {
    return Sample("dormouse_capture_" + metric, "kind=\"suspend\"");
  };
  const double suspends = counted("written_bytes_count");
  const double bytes = counted("written_bytes_sum");
  const double pauses = counted("pause_window_seconds_count");
  const double seconds = counted("pause_window_seconds_sum");
  Suspend();
  ASSERT_TRUE(Reconcile());
  ExpectAsleep();
  EXPECT_EQ(counted("written_bytes_count"), suspends + 1);
  EXPECT_EQ(counted("written_bytes_sum"), bytes + 4096);
  EXPECT_EQ(counted("pause_window_seconds_count"), pauses + 1);
  EXPECT_NEAR(counted("pause_window_seconds_sum"), seconds + 0.012, 1e-9);
}

TEST_F(AgentSleepTest, WakeGoesOnWhereItWasWithOneWrite) {
  Suspend();
  ASSERT_TRUE(Reconcile());
  const size_t before = control_plane_.writes.size();
  machine_.steps.clear();
  Wake();
  ASSERT_TRUE(Reconcile());
  ExpectAwake();
  EXPECT_EQ(control_plane_.writes.size(), before + 1);
  EXPECT_EQ(control_plane_.live->status.vm.start_mode, "Resume");
  EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "vmm.boot"), 0);
  EXPECT_EQ(control_plane_.events.back().substr(0, 15), "Normal Resumed:");
}

TEST_F(AgentSleepTest, AVmmThatDoesNotPauseIsEndedAndItsGuestBootsAndSleepsLater) {
  const int pid = vm().pid;
  vm().hangs_in_pause = true;
  Suspend();
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(vm().pid, 0) << "it hangs for ever";
  EXPECT_EQ(ReadyReason(), "VMMHung");
  EXPECT_EQ(control_plane_.events.back().substr(0, 55),
            "Warning VMMHung: the VMM did not pause, and was ended: ");
  ASSERT_TRUE(Reconcile());
  EXPECT_NE(vm().pid, pid);
  EXPECT_TRUE(vm().booted);
  EXPECT_EQ(control_plane_.live->status.restart_count, 1);
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(Phase(), "Running");
  const auto* suspended = api::FindCondition(control_plane_.live->status.conditions, "Suspended");
  EXPECT_EQ(suspended->reason, "VMMHung");
  clock_.Advance(options_.capture_retry);
  ASSERT_TRUE(Reconcile());
  ExpectAsleep();
}

TEST_F(AgentSleepTest, ASilentVmmIsNotPutToSleepWithoutItsMemory) {
  const int pid = vm().pid;
  vm().vmm_silent = true;
  agent_->OnMachineChanged(kUid.text());
  Suspend();
  Settle();
  EXPECT_EQ(vm().pid, pid);
  vm().vmm_silent = false;
  Settle();
  ExpectAsleep();
}

TEST_F(AgentSleepTest, NobodyIsLetIntoAGuestThatIsNotAwakeYet) {
  const kube::ObjectKey key = control_plane_.live->meta.key();
  EXPECT_TRUE(agent_->Guest(key));
  Suspend();
  ASSERT_TRUE(Reconcile());
  Wake();
  std::optional<ErrorCode> refused;
  machine_.meanwhile = [&](Step step) {
    if (step != Step::kThawGuest) return;
    const auto guest = agent_->Guest(key);
    if (!guest) refused = guest.error().code();
  };
  ASSERT_TRUE(Reconcile());
  ExpectAwake();
  EXPECT_EQ(refused, ErrorCode::kUnavailable);
  EXPECT_TRUE(agent_->Guest(key));
}

TEST_F(AgentSleepTest, AGuestThatWasNotFrozenIsThawedOnceItIsAwake) {
  Suspend();
  ASSERT_TRUE(Reconcile());
  Wake();
  machine_.steps.clear();
  machine_.captured_as_it_ran = true;
  ASSERT_TRUE(Reconcile());
  Settle();
  ExpectAwake();
  EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "guest.thaw"), 1);
}

TEST_F(AgentSleepTest, AnAgentThatDiesAroundAnyStepOfSuspendEndsAsleep) {
  for (const std::string& step : kSuspendSteps) {
    for (const char* when : {"before.", "after."}) {
      SCOPED_TRACE(when + step);
      Wake();
      Settle();
      ExpectAwake();
      Suspend();
      ASSERT_TRUE(failpoint::Arm("agent.step." + std::string(when) + step + "=1*error(EIO)"));
      // A failure that an agent lives to see makes the sandbox run on; one that it dies of does
      // not.
      options_.capture_retry = 0s;
      (void)Reconcile();
      failpoint::DisarmAll();
      Restart();
      Settle();
      ExpectAsleep();
    }
  }
}

TEST_F(AgentSleepTest, AnAgentThatDiesAroundAnyStepOfWakeEndsAwake) {
  for (const std::string& step : kWakeSteps) {
    for (const char* when : {"before.", "after."}) {
      SCOPED_TRACE(when + step);
      Suspend();
      Settle();
      ExpectAsleep();
      Wake();
      ASSERT_TRUE(failpoint::Arm("agent.step." + std::string(when) + step + "=1*error(EIO)"));
      EXPECT_FALSE(Reconcile()) << "the failpoint was not reached";
      failpoint::DisarmAll();
      Restart();
      Settle();
      ExpectAwake();
    }
  }
}

TEST_F(AgentSleepTest, ACaptureThatFailsLeavesItRunningAndSaysSo) {
  for (const std::string step :
       {"record.save", "capture.prepare", "vmm.pause", "capture.state", "capture.memory",
        "capture.disk", "capture.sync", "record.suspended"}) {
    SCOPED_TRACE(step);
    Suspend();
    ASSERT_TRUE(failpoint::Arm("agent.step.before." + step + "=1*error(ENOSPC)"));
    ASSERT_TRUE(Reconcile());
    failpoint::DisarmAll();
    EXPECT_EQ(Phase(), "Running");
    EXPECT_TRUE(Is("Ready"));
    EXPECT_FALSE(vm().frozen || vm().paused);
    const auto* suspended = api::FindCondition(control_plane_.live->status.conditions, "Suspended");
    ASSERT_NE(suspended, nullptr);
    EXPECT_EQ(suspended->reason, "SnapshotFailed");
    if (step == "vmm.pause") {
      Wake();
      (void)Reconcile();
      Suspend();  // another wish: nothing of the old failure counts
    } else {
      clock_.Advance(5min);
    }
    Settle();
    ExpectAsleep();
    Wake();
    Settle();
    ExpectAwake();
  }
}

TEST_F(AgentSleepTest, ACommitWithoutRoomForItsRecordLeavesItRunning) {
  std::optional<host::FileSizeLimit> full;
  machine_.meanwhile = [&full](Step step) {
    if (step == Step::kSyncCapture) full.emplace(0);
  };
  const char* written = "dormouse_capture_written_bytes_count";
  const double suspends = Sample(written, "kind=\"suspend\"");
  Suspend();
  const auto reconciled = Reconcile();
  full.reset();
  machine_.meanwhile = nullptr;
  ASSERT_TRUE(reconciled);
  ExpectAwake();
  EXPECT_EQ(Sample(written, "kind=\"suspend\""), suspends) << "it was not committed";
  const auto* suspended = api::FindCondition(control_plane_.live->status.conditions, "Suspended");
  ASSERT_NE(suspended, nullptr);
  EXPECT_EQ(suspended->reason, "SnapshotFailed");
  EXPECT_TRUE(vm().generations.empty());
  clock_.Advance(5min);
  Settle();
  ExpectAsleep();
}

TEST_F(AgentSleepTest, AGuestThatHangsIsNotSuspendedUntilItAnswersAndThatIsTold) {
  vm().silent = true;
  Suspend();
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(Phase(), "Running");
  EXPECT_EQ(ReadyReason(), "GuestAgentTimeout");
  const auto* suspended = api::FindCondition(control_plane_.live->status.conditions, "Suspended");
  ASSERT_NE(suspended, nullptr);
  EXPECT_EQ(suspended->reason, "GuestAgentTimeout");
  EXPECT_TRUE(vm().generations.empty());
  vm().silent = false;
  Settle();
  ExpectAsleep();
}

TEST_F(AgentSleepTest, AWakeThatFailsKeepsTheGenerationAndIsTriedAgain) {
  Suspend();
  Settle();
  machine_.restore_error = Error(ErrorCode::kInternal, "vm.restore: 500");
  Wake();
  (void)Reconcile();
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  ASSERT_EQ(vm().generations.size(), 1u);
  machine_.restore_error.reset();
  Settle();
  ExpectAwake();
}

TEST_F(AgentSleepTest, TheStatusThatSaysThatItSleepsSaysAllOfIt) {
  Suspend();
  for (int i = 0; i < 4 && Phase() != "Suspended"; ++i) ASSERT_TRUE(Reconcile());
  ASSERT_EQ(Phase(), "Suspended");
  EXPECT_FALSE(Is("GuestReady"));
}

TEST_F(AgentSleepTest, AGuestThatCannotBeThawedSleepsOnAndIsWokenWhenItIsAskedForAnew) {
  Suspend();
  Settle();
  machine_.captured_as_it_ran = true;
  machine_.thaw_error = Error(ErrorCode::kUnsupported, "request 10 is not known");
  machine_.steps.clear();
  Wake();
  ASSERT_TRUE(Reconcile());
  for (int lives = 0; lives < 2; ++lives) {
    Settle();
    ExpectAsleep();
    EXPECT_EQ(ReadyReason(), "ResumeFailed");
    EXPECT_NE(api::FindCondition(control_plane_.live->status.conditions, "Ready")
                  ->message.find("request 10 is not known"),
              std::string::npos);
    EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "vmm.restore"), 1);
    Restart();
  }
  machine_.thaw_error.reset();
  Settle();
  ExpectAsleep();
  Suspend();
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(ReadyReason(), "SuspendedByUser");
  Wake();
  Settle();
  ExpectAwake();
}

TEST_F(AgentSleepTest, AWakeThatWasRefusedKeepsNoRoomFromOthers) {
  const auto put = [this](int number, api::OperatingMode mode) {
    PutSleeper(number, 512, mode);
    (void)Reconcile(Sleeper(number));
  };
  for (const int number : {2, 3}) {
    put(number, api::OperatingMode::kRunning);
    put(number, api::OperatingMode::kSuspended);
  }
  options_.memory_bytes = (512 + 512) << 20;  // the fixture's own has 512
  Restart();
  machine_.thaw_error = Error(ErrorCode::kUnsupported, "request 10 is not known");
  put(2, api::OperatingMode::kRunning);
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  machine_.thaw_error.reset();
  put(3, api::OperatingMode::kRunning);
  EXPECT_EQ(ReadyReason(), "Ready");
  put(3, api::OperatingMode::kSuspended);
  Restart();
  put(2, api::OperatingMode::kRunning);
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  put(3, api::OperatingMode::kRunning);
  EXPECT_EQ(ReadyReason(), "Ready");
}

TEST_F(AgentSleepTest, ADiskThatADeadAgentLeftSuspendedIsLetGoAlsoWhereItsVmmHasDied) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.restart_policy = api::RestartPolicy::kAlways; });
  vm().disk_suspended = true;
  machine_.Crash(kUid);
  Restart();
  Settle();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_EQ(ReadyReason(), "Ready");
}

TEST_F(AgentSleepTest, WhatNobodyAccountsForIsRemovedAlsoIfItsDiskWasLeftSuspended) {
  FakeMachine::Vm& unknown = machine_.vms[kSuccessor];
  unknown.disk = unknown.prepared = unknown.disk_suspended = true;
  unknown.pid = 7;
  Restart();
  EXPECT_TRUE(machine_.vms[kSuccessor].Nothing());
}

TEST_F(AgentSleepTest, AVmmThatDiesBeforeTheGuestHasAnsweredIsWokenAgainFromTheSameGeneration) {
  Suspend();
  Settle();
  Wake();
  vm().silent = true;
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(Phase(), "Resuming");
  machine_.Crash(kUid);
  agent_->OnMachineChanged(kUid.text());
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  EXPECT_EQ(vm().generations.size(), 1u);
  vm().silent = false;
  for (int i = 0; i < 20; ++i) Settle();
  ExpectAwake();
}

TEST_F(AgentSleepTest, AWokenSandboxThatCrashesIsNeverResumedFromItsOldMemory) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.restart_policy = api::RestartPolicy::kAlways; });
  Suspend();
  Settle();
  Wake();
  Settle();
  machine_.steps.clear();
  machine_.Crash(kUid);
  agent_->OnMachineChanged(kUid.text());
  Settle();
  EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "vmm.restore"), 0);
  EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "vmm.boot"), 1);
  EXPECT_EQ(control_plane_.live->status.vm.start_mode, "Boot");
}

TEST_F(AgentSleepTest, TheLastWishWins) {
  for (int i = 0; i < 6; ++i) {
    Suspend();
    Wake();
    (void)Reconcile();
    Suspend();
    (void)Reconcile();
  }
  Settle();
  ExpectAsleep();
  Wake();
  Settle();
  ExpectAwake();
}

TEST_F(AgentSleepTest, ANodeWithoutRoomLeavesItAsleep) {
  Suspend();
  Settle();
  options_.memory_bytes = 1 << 20;
  Restart();
  Wake();
  Settle();
  EXPECT_EQ(Phase(), "Suspended");
  EXPECT_EQ(ReadyReason(), "NoCapacity");
  options_.memory_bytes = 0;
  Restart();
  Settle();
  ExpectAwake();
}

TEST_F(AgentSleepTest, ThoseThatWaitForRoomAreWokenInTheOrderOfTheirWishes) {
  const auto intent = [&](int number) { return records_->Find(Sleeper(number))->intent; };
  // One that runs and holds 600 MiB; one of 512 and one of 64 that sleep, and wish to be woken.
  PutSleeper(1, 600, api::OperatingMode::kRunning);
  ASSERT_TRUE(Reconcile(Sleeper(1)));
  for (const auto& [number, mib] : {std::pair{2, 512}, std::pair{3, 64}}) {
    PutSleeper(number, mib, api::OperatingMode::kSuspended);
    ASSERT_TRUE(Reconcile(Sleeper(number)));
  }
  options_.memory_bytes = (512 + 600 + 100) << 20;  // the fixture's own has 512
  Restart();
  for (const auto& [number, mib] : {std::pair{2, 512}, std::pair{3, 64}}) {
    PutSleeper(number, mib, api::OperatingMode::kRunning);
    ASSERT_TRUE(Reconcile(Sleeper(number)));
    clock_.Advance(1s);
  }
  EXPECT_EQ(intent(2), Intent::kSuspended);
  EXPECT_EQ(intent(3), Intent::kSuspended) << "it would fit, and the other came first";
  // The first gives up: now it is the second's turn.
  PutSleeper(2, 512, api::OperatingMode::kSuspended);
  ASSERT_TRUE(Reconcile(Sleeper(2)));
  PutSleeper(3, 64, api::OperatingMode::kRunning);
  ASSERT_TRUE(Reconcile(Sleeper(3)));
  EXPECT_EQ(intent(3), Intent::kRun);
}

TEST_F(AgentSleepTest, AWakeTellsNoUseOfItsDiskThatWasTold) {
  machine_.usage = {100 << 20, 200 << 20, 10};
  agent_->TendDisks();
  ASSERT_TRUE(Reconcile());
  Suspend();
  ASSERT_TRUE(Reconcile());
  Wake();
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(control_plane_.live->status.storage->cow_used_percent, 10);
  const size_t before = control_plane_.writes.size();
  agent_->TendDisks();
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(control_plane_.writes.size(), before);
}

TEST_F(AgentSleepTest, WhileTheRecordMaySayThatItSleepsNoGuestRunsOn) {
  // Whether the commit reached the disk cannot be known: no record can be written, nor read.
  std::optional<host::FileSizeLimit> full;
  machine_.meanwhile = [this, &full](Step step) {
    if (step != Step::kSyncCapture) return;
    ASSERT_TRUE(RemoveFile(paths_.Record(kUid)));
    full.emplace(0);
  };
  Suspend();
  EXPECT_FALSE(Reconcile());
  machine_.meanwhile = nullptr;
  Wake();
  EXPECT_FALSE(Reconcile());
  EXPECT_TRUE(vm().paused);
  full.reset();
  Settle();
  ExpectAwake();
  EXPECT_FALSE(records_->ReadBack(kUid)->sleeping);
}

TEST_F(AgentSleepTest, ADeletionNeedsNoRoomForItsRecord) {
  Delete();
  std::optional<host::FileSizeLimit> full(0);
  const auto reconciled = Reconcile();
  full.reset();
  ASSERT_TRUE(reconciled);
  EXPECT_TRUE(Is("Released"));
  EXPECT_TRUE(vm().Nothing());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
}

TEST_F(AgentSleepTest, WhatIsAsleepIsDeletedWithoutBeingWoken) {
  Suspend();
  Settle();
  machine_.steps.clear();
  Delete();
  ASSERT_TRUE(Reconcile());
  EXPECT_TRUE(Is("Released"));
  EXPECT_TRUE(vm().Nothing());
  EXPECT_TRUE(vm().generations.empty());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
  EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "vmm.restore"), 0);
}

}  // namespace
}  // namespace dormouse
