// Clones and boot snapshots, as users and operators see them, with the agent dying around every
// step.
#include "node-agent/sandbox/template_test_parts.h"

namespace dormouse {
namespace {

class AgentCloneTest : public TemplatesTest {
 protected:
  // The agent dies before and after each step of the clone; `then` is after another has settled it,
  // and makes it anew.
  void DieAroundEach(const std::vector<std::string>& steps, const std::function<void()>& then) {
    for (const std::string& step : steps) {
      for (const char* when : {"before.", "after."}) {
        SCOPED_TRACE(when + step);
        ASSERT_TRUE(failpoint::Arm("agent.step." + std::string(when) + step + "=1*error(EIO)"));
        EXPECT_FALSE(Reconcile(kSuccessor)) << "the failpoint was not reached";
        failpoint::DisarmAll();
        RestartAll();
        SettleAll(kSuccessor);
        then();
      }
    }
  }
};

TEST_F(AgentCloneTest, AnAgentThatDiesAroundAnyStepOfACloneEndsWithOne) {
  MakeTemplate();
  AddClone(kSuccessor, "clone");
  DieAroundEach(
      {"record.save", "disk.restore", "disk.prepare", "net.prepare", "vmm.prepare", "vmm.launch",
       "record.vmm", "vmm.restore", "guest.thaw", "guest.configure", "record.awake", "files.prune"},
      [this] {
        EXPECT_EQ(Phase(), "Running");
        EXPECT_EQ(StartMode(), "Template");
        EXPECT_TRUE(machine_.vms[kSuccessor].configured);
        EXPECT_FALSE(machine_.vms[kSuccessor].frozen);
        api::Sandbox again = *control_plane_.live;
        Delete();
        SettleAll(kSuccessor);
        EXPECT_TRUE(machine_.vms[kSuccessor].Nothing());
        again.status = {};
        again.status.node_name = "node-1";
        again.meta.deletion_time.reset();
        Put(again);
      });
}

TEST_F(AgentCloneTest, ATemplateThatIsDeletedWhileACloneStartsIsInUseAndTheCloneStarts) {
  MakeTemplate();
  AddClone(kSuccessor, "clone");
  bool deleted = false;
  During(Step::kRestoreStore, [&] {
    deleted = true;
    DeleteTemplate();
    EXPECT_OK(keeper_->Reconcile(kTemplateUid));
    ASSERT_TRUE(TemplateIs("InUse"));
    EXPECT_NE(api::FindCondition(Template().conditions, "InUse")->message.find("clone"),
              std::string::npos);
    EXPECT_FALSE(TemplateIs("Released"));
  });
  SettleAll(kSuccessor);
  ASSERT_TRUE(deleted);
  EXPECT_EQ(ReadyReason(), "Ready");
  EXPECT_EQ(StartMode(), "Template");
  EXPECT_FALSE(TemplateIs("Released"));
  EXPECT_TRUE(PathExists(paths_.TemplateRecord(kTemplate)));
  Delete();
  SettleAll(kSuccessor);
  EXPECT_TRUE(TemplateIs("Released"));
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
}

TEST_F(AgentCloneTest, ACloneThatCannotStartIsBootedFromItsTemplatesDiskWhereItIsAskedFor) {
  MakeTemplate();
  machine_.check_error = Error(ErrorCode::kCorrupt, "memory chunk 3 of 256 differs");
  AddClone(kSuccessor, "clone");
  SettleAll(kSuccessor);
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  EXPECT_TRUE(TemplateIs("InUse"));
  Change([](api::Sandbox& sandbox) {
    sandbox.meta.annotations["dormouse.dev/boot-from-disk"] = "true";
  });
  SettleAll(kSuccessor);
  EXPECT_EQ(ReadyReason(), "Ready");
  EXPECT_EQ(StartMode(), "Boot");
  EXPECT_EQ(machine_.vms[kSuccessor].booted_store, 0U) << "the template's disk";
  EXPECT_FALSE(TemplateIs("InUse")) << "it needs the template no more";
  EXPECT_TRUE(machine_.templates.at(kTemplate).whole);
  EXPECT_EQ(machine_.templates.size(), 1U) << "a tenant's disk leaves no boot snapshot";
}

TEST_F(AgentCloneTest, ACloneThatCannotBecomeAnotherHoldsNothingAndSaysWhy) {
  MakeTemplate();
  AddClone(kSuccessor, "clone");
  machine_.captured_as_it_ran = true;
  machine_.thaw_error = Error(ErrorCode::kConflict, "not frozen: its programs have seen who");
  machine_.steps.clear();
  const auto restores = [this] {
    return std::count(machine_.steps.begin(), machine_.steps.end(), "vmm.restore");
  };
  const auto expect_failed = [&] {
    EXPECT_EQ(Phase(), "Failed");
    const auto* ready = api::FindCondition(control_plane_.live->status.conditions, "Ready");
    EXPECT_EQ(ready->reason, "ResumeFailed");
    EXPECT_NE(ready->message.find("its programs have seen who"), std::string::npos);
    EXPECT_EQ(api::FindCondition(control_plane_.live->status.conditions, "GuestReady")->reason,
              "ResumeFailed");
    EXPECT_TRUE(machine_.vms[kSuccessor].Nothing());
    EXPECT_EQ(restores(), 1) << "its programs do not run as their source again and again";
  };
  ASSERT_TRUE(Reconcile(kSuccessor));
  expect_failed();
  SettleAll(kSuccessor);
  RestartAll();
  SettleAll(kSuccessor);
  expect_failed();
  EXPECT_TRUE(TemplateIs("InUse"));
  Change([](api::Sandbox& sandbox) {
    sandbox.meta.annotations["dormouse.dev/boot-from-disk"] = "true";
  });
  SettleAll(kSuccessor);
  EXPECT_EQ(ReadyReason(), "Ready");
  EXPECT_EQ(StartMode(), "Boot");
  EXPECT_EQ(machine_.vms[kSuccessor].booted_store, 0U);
  // What was said of its template's memory is not said of its own.
  machine_.thaw_error.reset();
  Wish(api::OperatingMode::kSuspended);
  ASSERT_TRUE(Reconcile(kSuccessor));
  Wish(api::OperatingMode::kRunning);
  SettleAll(kSuccessor);
  EXPECT_EQ(ReadyReason(), "Ready");
  EXPECT_EQ(StartMode(), "Resume");
}

TEST_F(AgentCloneTest, ACloneWhoseGuestIsOnlySlowToThawIsThawedWhereItIs) {
  MakeTemplate();
  AddClone(kSuccessor, "clone");
  machine_.thaw_error = Error(ErrorCode::kUnavailable, "nobody answers");
  EXPECT_FALSE(Reconcile(kSuccessor));
  EXPECT_EQ(ReadyReason(), "ResumeFailed");
  const int pid = machine_.vms[kSuccessor].pid;
  EXPECT_NE(pid, 0);
  machine_.thaw_error.reset();
  SettleAll(kSuccessor);
  EXPECT_EQ(ReadyReason(), "Ready");
  EXPECT_EQ(machine_.vms[kSuccessor].pid, pid);
}

TEST_F(AgentCloneTest, ACloneThatIsNotThawedWithinItsDeadlineIsEndedSaysWhyAndIsTriedAgain) {
  options_.guest_timeout = 5s;
  Restart();
  MakeTemplate();
  AddClone(kSuccessor, "clone");
  machine_.thaw_error = Error(ErrorCode::kInternal, "write /etc/machine-id: Input/output error");
  EXPECT_FALSE(Reconcile(kSuccessor));
  EXPECT_NE(machine_.vms[kSuccessor].pid, 0);
  clock_.Advance(5s);
  SettleAll(kSuccessor);
  EXPECT_TRUE(machine_.vms[kSuccessor].Nothing()) << "it holds no memory that others could have";
  const auto* ready = api::FindCondition(control_plane_.live->status.conditions, "Ready");
  EXPECT_EQ(ready->reason, "ResumeFailed");
  EXPECT_NE(ready->message.find("write /etc/machine-id"), std::string::npos) << ready->message;
  machine_.thaw_error.reset();
  clock_.Advance(5min);
  SettleAll(kSuccessor);
  EXPECT_EQ(ReadyReason(), "Ready");
}

TEST_F(AgentCloneTest, AnAgentThatDiesWhileItEndsACloneThatCannotStartLeavesNothing) {
  MakeTemplate();
  AddClone(kSuccessor, "clone");
  const api::Sandbox asked = *control_plane_.live;
  machine_.captured_as_it_ran = true;
  machine_.thaw_error = Error(ErrorCode::kUnsupported, "request 10 is not known");
  DieAroundEach({"vmm.kill", "disk.release", "net.remove", "vmm.remove", "files.prune"}, [&] {
    EXPECT_EQ(Phase(), "Failed");
    EXPECT_EQ(ReadyReason(), "ResumeFailed");
    EXPECT_TRUE(machine_.vms[kSuccessor].Nothing());
    Delete();
    SettleAll(kSuccessor);
    EXPECT_FALSE(records_->Find(kSuccessor));
    Put(asked);
  });
}

TEST_F(AgentCloneTest, ATemplateWhoseMemoryIsDamagedIsNotReadyUntilItIsWholeAgain) {
  MakeTemplate();
  agent_->NoteMemory(kTemplate, 0, "memory chunk 3 of 256 differs");
  SettleAll();
  EXPECT_FALSE(Template().ready_to_use);
  const auto* ready = api::FindCondition(Template().conditions, "Ready");
  EXPECT_EQ(ready->reason, "ResumeFailed");
  EXPECT_NE(ready->message.find("chunk 3"), std::string::npos);
  EXPECT_EQ(template_api_.events, (std::vector<std::string>{"Captured", "ResumeFailed"}));
  EXPECT_TRUE(machine_.templates.at(kTemplate).whole) << "nothing is removed";
  agent_->NoteMemory(kTemplate, 0, std::nullopt);
  SettleAll();
  EXPECT_TRUE(Template().ready_to_use);
}

TEST_F(AgentCloneTest, ACloneThatContradictsItsTemplateIsToldWhatToWrite) {
  MakeTemplate();
  AddClone(kSuccessor, "clone");
  Change([](api::Sandbox& sandbox) { sandbox.spec.asked.vcpus = 4; });
  ASSERT_TRUE(Reconcile(kSuccessor));
  EXPECT_EQ(ReadyReason(), "InvalidSpec");
  EXPECT_NE(control_plane_.live->status.conditions[0].message.find("leave resources out"),
            std::string::npos);
}

TEST_F(AgentCloneTest, ASandboxWhoseTemplateIsElsewhereIsPlacedAnew) {
  AddClone(kSuccessor, "clone");
  ASSERT_TRUE(Reconcile(kSuccessor));
  EXPECT_EQ(ReadyReason(), "SourceNotReady");
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released"));
}

TEST_F(AgentCloneTest, ACloneInLineHasNothingButItsRecordAndWakesWhenItsTurnComes) {
  LetTheSourceKeepTheOnlyTurn();
  AddClone(kSuccessor, "clone");
  for (int lives = 0; lives < 2; ++lives) {
    ASSERT_TRUE(Reconcile(kSuccessor));
    EXPECT_EQ(ReadyReason(), "Starting");
    EXPECT_EQ(api::FindCondition(control_plane_.live->status.conditions, "Ready")->message,
              "in line: others wake first");
    EXPECT_TRUE(machine_.vms[kSuccessor].Nothing());
    ASSERT_TRUE(records_->Find(kSuccessor)) << "its slot is its own";
    (void)keeper_->Reconcile(kTemplateUid);
    EXPECT_TRUE(TemplateIs("InUse"));
    RestartAll();
    ASSERT_TRUE(Reconcile());
  }
  enqueued_.clear();
  vm().silent = false;
  (void)Reconcile(kSuccessor);
  (void)Reconcile();
  EXPECT_EQ(enqueued_, std::vector<std::string>{kSuccessor.text()});
  SettleAll(kSuccessor);
  EXPECT_EQ(ReadyReason(), "Ready");
  EXPECT_EQ(StartMode(), "Template");
}

TEST_F(AgentCloneTest, OneInLineCanGoAndLeavesNothing) {
  LetTheSourceKeepTheOnlyTurn();
  AddClone(kSuccessor, "clone");
  ASSERT_TRUE(Reconcile(kSuccessor));
  Delete();
  SettleAll(kSuccessor);
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released"));
  EXPECT_FALSE(records_->Find(kSuccessor));
}

class BootSnapshotTest : public AgentCloneTest {
 protected:
  BootSnapshotTest() {
    options_.boot_snapshots = BootSnapshots::kNamespace;
    Restart();
  }
  void AddSandbox(const std::string& ns = "default") {
    api::Sandbox other = *control_plane_.live;
    other.meta.ns = ns;
    other.meta.name = "other";
    other.meta.uid = kSuccessor.text();
    other.uid = kSuccessor;
    other.meta.deletion_time.reset();
    other.status = {};
    other.status.node_name = "node-1";
    Put(other);
  }
};

TEST_F(BootSnapshotTest, TheFirstBootLeavesASnapshotAndTheSecondSandboxStartsFromIt) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command = {"sleep", "1"}; });
  Settle();
  EXPECT_EQ(StartMode(), "Boot");
  EXPECT_EQ(vm().workload, FakeMachine::Workload::kRunning);
  ASSERT_EQ(templates_->All().size(), 1U);
  ASSERT_EQ(machine_.templates.size(), 1U);
  EXPECT_FALSE(machine_.templates.begin()->second.configured)
      << "nothing of a tenant is in what others start from";
  EXPECT_EQ(control_plane_.writes.size(), 1U);

  AddSandbox();
  machine_.steps.clear();
  for (int i = 0; i < 4; ++i) (void)Reconcile(kSuccessor);
  EXPECT_EQ(StartMode(), "BootSnapshot");
  EXPECT_EQ(Phase(), "Running");
  EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "vmm.boot"), 0);
  EXPECT_EQ(machine_.vms[kSuccessor].workload, FakeMachine::Workload::kRunning);
  EXPECT_TRUE(machine_.vms[kSuccessor].configured);
}

TEST_F(BootSnapshotTest, HowItStartedIsToldUntilItStartsAnew) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command = {"sleep", "1"}; });
  Settle();
  AddSandbox();
  for (int i = 0; i < 4; ++i) (void)Reconcile(kSuccessor);
  ASSERT_EQ(StartMode(), "BootSnapshot");
  Wish(api::OperatingMode::kSuspended);
  for (int i = 0; i < 4; ++i) (void)Reconcile(kSuccessor);
  ASSERT_EQ(Phase(), "Suspended");
  EXPECT_EQ(StartMode(), "BootSnapshot") << "it has not been woken yet";
  Wish(api::OperatingMode::kRunning);
  for (int i = 0; i < 4; ++i) (void)Reconcile(kSuccessor);
  ASSERT_EQ(StartMode(), "Resume");
  machine_.vms[kSuccessor].workload = FakeMachine::Workload::kExited;
  agent_->OnMachineChanged(kSuccessor.text());
  for (int i = 0; i < 4; ++i) (void)Reconcile(kSuccessor);
  ASSERT_EQ(Phase(), "Finished");
  EXPECT_EQ(StartMode(), "Resume") << "it has ended, and was not booted";
}

TEST_F(BootSnapshotTest, AUserThatTheDiskLacksEndsACloneOfABootSnapshotToo) {
  Settle();
  AddSandbox();
  machine_.configure_error = Error(ErrorCode::kInvalid, "user: no user \"app\" in /etc/passwd");
  for (int i = 0; i < 4; ++i) (void)Reconcile(kSuccessor);
  EXPECT_EQ(Phase(), "Failed");
  EXPECT_TRUE(machine_.vms[kSuccessor].pid == 0);
  EXPECT_FALSE(records_->Find(kSuccessor)->NeedsTemplate()) << "it would boot";
}

TEST_F(BootSnapshotTest, AnotherNamespaceMakesItsOwn) {
  Settle();
  AddSandbox("elsewhere");
  for (int i = 0; i < 4; ++i) (void)Reconcile(kSuccessor);
  EXPECT_EQ(StartMode(), "Boot");
  EXPECT_EQ(templates_->All().size(), 2U);
}

TEST_F(BootSnapshotTest, NeverMeansNever) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.boot_snapshot = false; });
  Settle();
  EXPECT_TRUE(templates_->All().empty());
}

TEST_F(BootSnapshotTest, AnAgentThatDidNotSeeTheBootTakesNone) {
  ASSERT_TRUE(failpoint::Arm("agent.step.before.capture.prepare=1*error(EIO)"));
  (void)Reconcile();
  failpoint::DisarmAll();
  Restart();
  Settle();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_TRUE(templates_->All().empty())
      << "who knows what the guest was told: the next sandbox's boot leaves one";
}

TEST_F(BootSnapshotTest, OneThatCannotBeTakenCostsNothing) {
  ASSERT_TRUE(failpoint::Arm("agent.step.before.capture.memory=error(ENOSPC)"));
  Settle();
  failpoint::DisarmAll();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Ready"));
  EXPECT_TRUE(templates_->All().empty());
}

TEST_F(BootSnapshotTest, OneThatCannotBeStartedFromGoesAndTheSandboxBoots) {
  Settle();
  Delete();
  Settle();
  machine_.restore_error = Error(ErrorCode::kCorrupt, "state.json differs");
  AddSandbox();
  for (int i = 0; i < 6; ++i) (void)Reconcile(kSuccessor);
  EXPECT_EQ(Phase(), "Running");
  EXPECT_EQ(StartMode(), "Boot");
  EXPECT_TRUE(templates_->All().empty());
}

TEST_F(BootSnapshotTest, OneWhoseGuestCannotBeThawedGoesAndTheSandboxBoots) {
  Settle();
  Delete();
  Settle();
  machine_.thaw_error = Error(ErrorCode::kUnsupported, "request 10 is not known");
  AddSandbox();
  for (int i = 0; i < 6; ++i) (void)Reconcile(kSuccessor);
  EXPECT_EQ(Phase(), "Running");
  EXPECT_EQ(StartMode(), "Boot");
  EXPECT_TRUE(templates_->All().empty());
}

TEST_F(BootSnapshotTest, TheyAreBoundedInSpaceAndGoWhenTheNodeIsShortOfDisk) {
  Settle();
  Delete();
  Settle();
  ASSERT_EQ(templates_->All().size(), 1U);
  machine_.disk_state = Machine::DiskState::kRefuseNew;
  agent_->TendDisks();
  EXPECT_TRUE(templates_->All().empty());

  machine_.disk_state = Machine::DiskState::kFine;
  options_.boot_snapshot_bytes = (1 << 20) + 8192;  // one of the fake's
  Restart();
  AddSandbox("first");
  for (int i = 0; i < 4; ++i) (void)Reconcile(kSuccessor);
  AddSandbox("second");
  Delete();
  for (int i = 0; i < 4; ++i) (void)Reconcile(kSuccessor);
  const auto first = templates_->All();
  ASSERT_EQ(first.size(), 1U);
  EXPECT_EQ(first.front()->ns, "first");
}

}  // namespace
}  // namespace dormouse
