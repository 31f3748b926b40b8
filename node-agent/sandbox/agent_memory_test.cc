// Memory that cannot be used, as a user sees it: what is said of it, and the boot from the disk
// beside it, with the agent dying around every step.
#include "node-agent/sandbox/agent_test_parts.h"
#include "node-agent/sandbox/template_keeper.h"

namespace dormouse {
namespace {

constexpr char kAnnotation[] = "dormouse.dev/boot-from-disk";
const std::string kDamage = "memory chunk 3 of 256 (at offset 6291456) differs";

class AgentMemoryTest : public AgentTest {
 protected:
  AgentMemoryTest() {
    Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command = {"sleep", "1"}; });
    Settle();
  }
  void Suspend() {
    Wish(api::OperatingMode::kSuspended);
    Settle();
    ASSERT_EQ(control_plane_.live->status.phase, "Suspended");
  }
  void Wake() { Wish(api::OperatingMode::kRunning); }
  void Annotate() {
    Change([](api::Sandbox& sandbox) { sandbox.meta.annotations[kAnnotation] = "true"; });
  }
  void RemoveAnnotation() {
    Change([](api::Sandbox& sandbox) { sandbox.meta.annotations.clear(); });
  }
  void Damage() { machine_.check_error = Error(ErrorCode::kCorrupt, kDamage); }
  int Events(const std::string& beginning) {
    return static_cast<int>(
        std::count_if(control_plane_.events.begin(), control_plane_.events.end(),
                      [&](const std::string& event) { return event.starts_with(beginning); }));
  }
  const api::Condition& Suspended() {
    return *api::FindCondition(control_plane_.live->status.conditions, "Suspended");
  }
  void ExpectBootedFrom(uint64_t generation) {
    EXPECT_EQ(Phase(), "Running");
    EXPECT_EQ(ReadyReason(), "Ready");
    EXPECT_EQ(control_plane_.live->status.vm.start_mode, "Boot");
    EXPECT_EQ(vm().booted_store, generation) << "its disk is that of its sleep";
    EXPECT_EQ(vm().workload, FakeMachine::Workload::kRunning);
    EXPECT_TRUE(vm().generations.empty());
    const Record record = *records_->Find(kUid);
    EXPECT_FALSE(record.sleeping || record.memory_generation);
  }
};

TEST_F(AgentMemoryTest, WhoAsksForItGoesOnFromTheDiskWithoutTheMemory) {
  Suspend();
  Damage();
  Wake();
  Settle();
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  EXPECT_EQ(vm().generations.size(), 1U) << "nothing is given up that nobody said to";
  Annotate();
  ASSERT_TRUE(Reconcile());
  ExpectBootedFrom(1);
  EXPECT_EQ(Events("Warning MemoryGivenUp"), 1);
  EXPECT_NE(control_plane_.events[control_plane_.events.size() - 2].find(kDamage),
            std::string::npos)
      << control_plane_.events[control_plane_.events.size() - 2];
  Settle();
  EXPECT_EQ(Events("Warning MemoryGivenUp"), 1);
}

TEST_F(AgentMemoryTest, WhatWasPutRightByHandWakesByItself) {
  Suspend();
  Damage();
  Wake();
  // The queue comes back to it (kube/controller_loop.h), though no object changes when a disk does.
  EXPECT_FALSE(Reconcile());
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  machine_.check_error.reset();
  Settle();
  EXPECT_EQ(ReadyReason(), "Ready");
}

TEST_F(AgentMemoryTest, AMemoryThatCanBeUsedIsNotGivenUp) {
  Suspend();
  Annotate();
  Wake();
  Settle();
  EXPECT_EQ(control_plane_.live->status.vm.start_mode, "Resume");
  EXPECT_EQ(Events("Warning MemoryGivenUp"), 0);
}

TEST_F(AgentMemoryTest, ANodeThatLacksRoomForAWakeCostsNobodyItsMemory) {
  Suspend();
  Annotate();
  machine_.check_error = Error(ErrorCode::kNoSpace, "clone store.cow: ENOSPC");
  Wake();
  Settle();
  EXPECT_EQ(vm().generations.size(), 1U);
  machine_.check_error.reset();
  Settle();
  EXPECT_EQ(control_plane_.live->status.vm.start_mode, "Resume");
}

TEST_F(AgentMemoryTest, AnAnnotationThatStoodBeforeTheSleepIsNotMeantForIt) {
  Annotate();
  Settle();
  EXPECT_EQ(Phase(), "Running") << "it says nothing to what is awake";
  Suspend();
  Damage();
  Wake();
  Settle();
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  EXPECT_EQ(vm().generations.size(), 1U);
  Restart();
  Settle();
  EXPECT_EQ(vm().generations.size(), 1U) << "nor after the agent's end";
  RemoveAnnotation();
  (void)Reconcile();
  Restart();
  Annotate();
  Settle();
  ExpectBootedFrom(1);
  // It stands still: the next sleep keeps its memory again.
  machine_.check_error.reset();
  Suspend();
  machine_.restore_error = Error(ErrorCode::kInternal, "vm.restore: 500");
  Wake();
  Settle();
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  EXPECT_EQ(vm().generations.size(), 1U);
}

TEST_F(AgentMemoryTest, AGuestThatNeverAnswersAfterItsWakeIsBootedToo) {
  Suspend();
  Annotate();
  Wake();
  vm().silent = true;
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(Phase(), "Resuming");
  machine_.Crash(kUid);
  agent_->OnMachineChanged(kUid.text());
  (void)Reconcile();
  vm().silent = false;
  for (int i = 0; i < 20; ++i) Settle();
  ExpectBootedFrom(1);
}

TEST_F(AgentMemoryTest, WhatCannotBootFromTheDiskEitherKeepsItsMemory) {
  Suspend();
  Damage();
  machine_.take_error = Error(ErrorCode::kNotFound, "its base is gone");
  Annotate();
  Wake();
  Settle();
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  EXPECT_EQ(vm().generations.size(), 1U);
  EXPECT_EQ(records_->Find(kUid)->sleeping, 1U);
  EXPECT_EQ(Events("Warning MemoryGivenUp"), 0);
  // The memory was put right instead.
  machine_.check_error.reset();
  RemoveAnnotation();
  Settle();
  EXPECT_EQ(control_plane_.live->status.vm.start_mode, "Resume");
}

TEST_F(AgentMemoryTest, AnAgentThatDiesAroundAnyStepEndsBootedFromThatDisk) {
  uint64_t generation = 0;
  for (const std::string step :
       {"vmm.kill", "disk.release", "disk.take", "record.disk-only", "files.prune", "record.save",
        "disk.prepare", "vmm.launch", "vmm.create", "vmm.boot", "guest.configure"}) {
    for (const char* when : {"before.", "after."}) {
      SCOPED_TRACE(when + step);
      RemoveAnnotation();
      Suspend();
      ++generation;
      vm().booted_store.reset();
      // The VMM is up and has refused: it is killed, and its disk released.
      machine_.restore_error = Error(ErrorCode::kInternal, "vm.restore: 500");
      Wake();
      EXPECT_FALSE(Reconcile());
      EXPECT_EQ(ReadyReason(), "ResumeFailed");
      Annotate();
      ASSERT_TRUE(failpoint::Arm("agent.step." + std::string(when) + step + "=1*error(EIO)"));
      EXPECT_FALSE(Reconcile()) << "the failpoint was not reached";
      failpoint::DisarmAll();
      if (records_->Find(kUid)->sleeping) {
        EXPECT_EQ(vm().generations.count(generation), 1U) << "a memory that counts is whole";
      }
      Restart();
      Settle();
      machine_.restore_error.reset();
      ExpectBootedFrom(generation);
    }
  }
}

TEST_F(AgentMemoryTest, AMemoryThatWasForgottenIsRemovedAtTheFirstLook) {
  for (const bool restarts : {true, false}) {
    SCOPED_TRACE(restarts);
    RemoveAnnotation();
    Suspend();
    Damage();
    Wake();
    EXPECT_FALSE(Reconcile());
    Annotate();
    ASSERT_TRUE(failpoint::Arm("agent.step.after.record.disk-only=1*error(EIO)"));
    EXPECT_FALSE(Reconcile());
    failpoint::DisarmAll();
    machine_.check_error.reset();
    ASSERT_EQ(vm().generations.size(), 1U);
    EXPECT_FALSE(records_->Find(kUid)->sleeping);
    if (restarts) Restart();
    // No time has passed.
    ASSERT_TRUE(Reconcile());
    EXPECT_TRUE(vm().generations.empty());
    Settle();
    EXPECT_EQ(Phase(), "Running");
  }
}

TEST_F(AgentMemoryTest, DamageThatTheScrubFoundIsToldOfWhatSleepsAndNothingIsLost) {
  Suspend();
  agent_->NoteMemory(kUid, 1, kDamage);
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(Phase(), "Suspended");
  EXPECT_EQ(Suspended().status, api::ConditionStatus::kTrue);
  EXPECT_EQ(Suspended().reason, "ResumeFailed");
  EXPECT_NE(Suspended().message.find(kDamage), std::string::npos);
  EXPECT_EQ(Events("Warning ResumeFailed"), 1);
  EXPECT_EQ(vm().generations.size(), 1U);
  Settle();
  EXPECT_EQ(Events("Warning ResumeFailed"), 1) << "once";
  // It was put right by hand, and read again.
  agent_->NoteMemory(kUid, 1, std::nullopt);
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(Suspended().reason, "SuspendedByUser");
  EXPECT_EQ(Events("Normal Suspended"), 1) << "it slept all the time";
}

TEST_F(AgentMemoryTest, DamageOfAnEarlierSleepSaysNothingOfThisOne) {
  Suspend();
  agent_->NoteMemory(kUid, 1, kDamage);
  Wake();
  Settle();
  Suspend();
  EXPECT_EQ(Suspended().reason, "SuspendedByUser");
}

}  // namespace
}  // namespace dormouse
