// Templates, clones and boot snapshots, as users and operators see them, with the agent dying
// around every step.
#include "node-agent/sandbox/agent_test_parts.h"
#include "node-agent/sandbox/template_keeper.h"

namespace dormouse {
namespace {

const std::string kTemplateUid = "2b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a33";
const api::SandboxUid kTemplate = *api::SandboxUid::Parse(kTemplateUid);

class FakeTemplateApi : public TemplateControlPlane {
 public:
  Result<std::optional<api::SnapshotTemplate>> ReadLive(const kube::ObjectKey&) override {
    return live;
  }
  Result<std::optional<api::SnapshotTemplate>> WriteStatus(
      const api::SnapshotTemplate& object, const api::SnapshotTemplateStatus& status) override {
    if (!live || live->meta.uid != object.meta.uid) return std::optional<api::SnapshotTemplate>();
    writes.push_back(status);
    live->status = status;
    live->meta.resource_version = Next(live->meta.resource_version);
    return live;
  }
  void Event(const api::SnapshotTemplate&, bool, std::string_view reason,
             std::string_view) override {
    events.push_back(std::string(reason));
  }
  std::optional<api::SnapshotTemplate> live;
  std::vector<api::SnapshotTemplateStatus> writes;
  std::vector<std::string> events;
};

class AgentCloneTest : public AgentTest {
 protected:
  void MakeKeeper() {
    keeper_ = std::make_unique<TemplateKeeper>(options_, *agent_, machine_, *records_, *templates_,
                                               objects_, store_, template_api_, clock_);
  }
  void RestartAll() {
    keeper_.reset();
    Restart();
    MakeKeeper();
  }
  void PutTemplate(const api::SnapshotTemplate& object) {
    template_api_.live = object;
    objects_.Upsert({object.meta.key(), object.meta.uid, object.meta.resource_version},
                    std::make_shared<api::SnapshotTemplate>(object), false);
  }
  void ChangeTemplate(const std::function<void(api::SnapshotTemplate&)>& change) {
    api::SnapshotTemplate object = *template_api_.live;
    change(object);
    object.meta.resource_version = Next(object.meta.resource_version);
    PutTemplate(object);
  }
  void AskForTemplate() {
    api::SnapshotTemplate object;
    object.meta.ns = "default";
    object.meta.name = "warm";
    object.meta.uid = kTemplateUid;
    object.meta.generation = 1;
    object.meta.creation_time = clock_.WallNow();
    object.meta.resource_version = kube::ResourceVersion("100");
    object.source = "web";
    object.status.node_name = "node-1";
    PutTemplate(object);
    MakeKeeper();
  }
  void AddClone(const api::SandboxUid& uid, const std::string& name) {
    api::Sandbox clone = *control_plane_.live;
    clone.meta.name = name;
    clone.meta.uid = uid.text();
    clone.uid = uid;
    clone.spec = {};
    clone.spec.snapshot_template = "warm";
    clone.status = {};
    clone.status.node_name = "node-1";
    Put(clone);
  }
  void DeleteTemplate() {
    ChangeTemplate(
        [&](api::SnapshotTemplate& object) { object.meta.deletion_time = clock_.WallNow(); });
  }
  // Once, in the middle of that step.
  void During(Step step, std::function<void()> happens) {
    machine_.meanwhile = [step, happens = std::move(happens), done = false](Step taken) mutable {
      if (taken == step && !std::exchange(done, true)) happens();
    };
  }
  // There is one turn, and the template's source, which is silent, has it while it wakes.
  void LetTheSourceKeepTheOnlyTurn() {
    options_.wakes_at_once = 1;
    Restart();
    Settle();
    AskForTemplate();
    SettleAll();
    Wish(api::OperatingMode::kSuspended);
    SettleAll();
    Wish(api::OperatingMode::kRunning);
    vm().silent = true;
    ASSERT_TRUE(Reconcile());
    ASSERT_NE(vm().pid, 0);
  }
  // As the two queues would, until nothing more changes.
  void SettleAll(const api::SandboxUid& uid = kUid) {
    for (int i = 0; i < 10; ++i) {
      if (keeper_) (void)keeper_->Reconcile(kTemplateUid);
      (void)Reconcile(uid);
      clock_.Advance(1s);
    }
    if (keeper_) (void)keeper_->Reconcile(kTemplateUid);
  }
  const api::SnapshotTemplateStatus& Template() { return template_api_.live->status; }
  bool TemplateIs(const char* condition) { return api::IsTrue(Template().conditions, condition); }
  std::string StartMode() { return control_plane_.live->status.vm.start_mode; }

  kube::Store<api::SnapshotTemplate> objects_;
  FakeTemplateApi template_api_;
  std::unique_ptr<TemplateKeeper> keeper_;
};

TEST_F(AgentCloneTest, ATemplateIsCapturedWithTwoWritesAndItsSourceRunsOn) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command = {"sleep", "1"}; });
  Settle();
  AskForTemplate();
  const size_t before = control_plane_.writes.size();
  SettleAll();
  EXPECT_EQ(Template().phase, "Ready");
  EXPECT_TRUE(Template().ready_to_use);
  EXPECT_EQ(Template().source_uid, kUid.text());
  EXPECT_EQ(Template().nodes, std::vector<std::string>{"node-1"});
  EXPECT_EQ(Template().pause_window, 12ms);
  EXPECT_FALSE(TemplateIs("InUse"));
  EXPECT_LE(template_api_.writes.size(), 3U);
  EXPECT_EQ(template_api_.events, std::vector<std::string>{"Captured"});
  EXPECT_EQ(control_plane_.writes.size(), before) << "the source is as it was";
  EXPECT_FALSE(vm().paused || vm().frozen);
  EXPECT_EQ(vm().workload, FakeMachine::Workload::kRunning);
  EXPECT_TRUE(machine_.templates.at(kTemplate).whole);
  EXPECT_EQ(control_plane_.live->status.snapshot, std::nullopt)
      << "the source's own last capture is not this one";
}

TEST_F(AgentCloneTest, AnAgentThatDiesAroundAnyStepOfACaptureEndsWithItAndARunningSource) {
  Settle();
  AskForTemplate();
  for (const std::string step : {"record.save", "capture.prepare", "guest.freeze", "vmm.pause",
                                 "capture.state", "capture.memory", "capture.disk", "capture.sync",
                                 "template.commit", "vmm.resume", "guest.thaw"}) {
    for (const char* when : {"before.", "after."}) {
      SCOPED_TRACE(when + step);
      ASSERT_TRUE(failpoint::Arm("agent.step." + std::string(when) + step + "=1*error(EIO)"));
      (void)keeper_->Reconcile(kTemplateUid);
      (void)Reconcile();
      failpoint::DisarmAll();
      RestartAll();
      SettleAll();
      EXPECT_EQ(Template().phase, "Ready");
      EXPECT_FALSE(vm().paused || vm().frozen);
      EXPECT_NE(vm().pid, 0);
      // The next one begins from nothing.
      ASSERT_TRUE(templates_->Remove(kTemplate));
      ChangeTemplate([](api::SnapshotTemplate& object) {
        object.status = {};
        object.status.node_name = "node-1";
      });
      RestartAll();
    }
  }
}

TEST_F(AgentCloneTest, ACaptureThatFailsIsTriedAgainUntilItsDeadlineAndThenHasFailed) {
  Settle();
  AskForTemplate();
  ASSERT_TRUE(failpoint::Arm("agent.step.before.capture.memory=error(ENOSPC)"));
  SettleAll();
  EXPECT_EQ(Template().phase, "Capturing");
  EXPECT_FALSE(vm().paused || vm().frozen) << "the source runs on";
  clock_.Advance(5min);
  SettleAll();
  failpoint::DisarmAll();
  EXPECT_EQ(Template().phase, "Failed");
  EXPECT_TRUE(TemplateIs("Failed"));
  EXPECT_NE(Template().error->message.find("failureDeadline"), std::string::npos);
  SettleAll();
  EXPECT_EQ(Template().phase, "Failed") << "for good";
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
}

TEST_F(AgentCloneTest, ACaptureWithoutRoomForTheSourcesRecordIsTheCapturesFailure) {
  Settle();
  AskForTemplate();
  const size_t before = control_plane_.writes.size();
  ASSERT_TRUE(failpoint::Arm("agent.step.before.record.save=1*error(ENOSPC)"));
  SettleAll();
  for (size_t i = before; i < control_plane_.writes.size(); ++i)
    EXPECT_TRUE(api::IsTrue(control_plane_.writes[i].conditions, "Ready")) << "the source runs on";
  clock_.Advance(1min);
  SettleAll();
  EXPECT_EQ(Template().phase, "Ready");
}

TEST_F(AgentCloneTest, TheMetricsCountWhatATemplatesCaptureWroteAndHowLongItsSourceStoodStill) {
  const auto counted = [](const std::string& metric) {
    return Sample("dormouse_capture_" + metric, "kind=\"template\"");
  };
  const double bytes = counted("written_bytes_sum");
  const double seconds = counted("pause_window_seconds_sum");
  Settle();
  AskForTemplate();
  SettleAll();
  EXPECT_EQ(counted("written_bytes_sum"), bytes + 4096);
  EXPECT_NEAR(counted("pause_window_seconds_sum"), seconds + 0.012, 1e-9);
}

TEST_F(AgentCloneTest, ATemplateOfOneThatSleepsLeavesItAsleep) {
  Settle();
  Change(
      [](api::Sandbox& sandbox) { sandbox.spec.operating_mode = api::OperatingMode::kSuspended; });
  Settle();
  const std::string written = "dormouse_capture_written_bytes_count";
  const double captures = Sample(written, "kind=\"template\"");
  AskForTemplate();
  SettleAll();
  EXPECT_EQ(Sample(written, "kind=\"template\""), captures) << "nothing stood still for it";
  EXPECT_EQ(Template().phase, "Ready");
  EXPECT_EQ(Phase(), "Suspended");
  EXPECT_TRUE(vm().Nothing());
}

TEST_F(AgentCloneTest, AnAgentThatDiesAroundAnyStepOfACloneEndsWithOne) {
  Settle();
  AskForTemplate();
  SettleAll();
  AddClone(kSuccessor, "clone");
  for (const std::string step : {"record.save", "disk.restore", "disk.prepare", "net.prepare",
                                 "vmm.prepare", "vmm.launch", "record.vmm", "vmm.restore",
                                 "guest.thaw", "guest.configure", "record.awake", "files.prune"}) {
    for (const char* when : {"before.", "after."}) {
      SCOPED_TRACE(when + step);
      ASSERT_TRUE(failpoint::Arm("agent.step." + std::string(when) + step + "=1*error(EIO)"));
      EXPECT_FALSE(Reconcile(kSuccessor)) << "the failpoint was not reached";
      failpoint::DisarmAll();
      RestartAll();
      SettleAll(kSuccessor);
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
    }
  }
}

TEST_F(AgentCloneTest, ATemplateThatIsDeletedStaysUntilNobodyNeedsItAndNamesWhoDoes) {
  Settle();
  AskForTemplate();
  SettleAll();
  AddClone(kSuccessor, "clone");
  SettleAll(kSuccessor);
  EXPECT_EQ(Template().references, 1);
  DeleteTemplate();
  SettleAll(kSuccessor);
  EXPECT_EQ(Template().phase, "Deleting");
  ASSERT_TRUE(TemplateIs("InUse"));
  EXPECT_NE(api::FindCondition(Template().conditions, "InUse")->message.find("clone"),
            std::string::npos);
  EXPECT_FALSE(TemplateIs("Released"));
  EXPECT_TRUE(templates_->Find(kTemplate));
  // Once it has slept it has a memory of its own.
  Change(
      [](api::Sandbox& sandbox) { sandbox.spec.operating_mode = api::OperatingMode::kSuspended; });
  SettleAll(kSuccessor);
  EXPECT_TRUE(TemplateIs("Released"));
  EXPECT_EQ(templates_->Find(kTemplate), nullptr);
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
}

TEST_F(AgentCloneTest, ATemplateThatIsDeletedDuringItsCaptureGoesWhenThatHasGivenUp) {
  Settle();
  AskForTemplate();
  const api::SnapshotTemplate wanted = *template_api_.live;
  for (const Step step :
       {Step::kPrepareCapture, Step::kFreezeGuest, Step::kPauseVm, Step::kCaptureState,
        Step::kCaptureMemory, Step::kCaptureDisk, Step::kSyncCapture}) {
    SCOPED_TRACE(StepName(step));
    machine_.steps.clear();
    bool deleted = false;
    During(step, [&] {
      deleted = true;
      machine_.steps.clear();
      const bool begun = PathExists(paths_.Template(kTemplate));
      DeleteTemplate();
      EXPECT_OK(keeper_->Reconcile(kTemplateUid));
      EXPECT_EQ(Template().phase, "Deleting");
      EXPECT_FALSE(TemplateIs("Released")) << "it is being written";
      EXPECT_EQ(PathExists(paths_.Template(kTemplate)), begun);
    });
    EXPECT_OK(keeper_->Reconcile(kTemplateUid));
    changed_templates_.clear();
    EXPECT_OK(Reconcile());
    ASSERT_TRUE(deleted);
    EXPECT_EQ(changed_templates_, std::vector<std::string>{kTemplateUid}) << "it is not polled for";
    EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
    for (const std::string& after : machine_.steps) {
      // These two stand side by side.
      if (step == Step::kCaptureMemory || step == Step::kCaptureDisk) {
        if (after == "capture.memory" || after == "capture.disk") continue;
      }
      EXPECT_FALSE(after.starts_with("capture.")) << after << ", for nothing";
    }
    SettleAll();
    EXPECT_TRUE(TemplateIs("Released"));
    EXPECT_TRUE(templates_->All().empty());
    EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
    EXPECT_FALSE(vm().paused || vm().frozen);
    EXPECT_NE(vm().pid, 0);
    EXPECT_EQ(Phase(), "Running");
    PutTemplate(wanted);
    RestartAll();
  }
}

TEST_F(AgentCloneTest, ATemplateThatIsDeletedDuringItsCommitGoesAfterIt) {
  Settle();
  AskForTemplate();
  bool deleted = false;
  During(Step::kCommitTemplate, [&] {
    deleted = true;
    DeleteTemplate();
    EXPECT_OK(keeper_->Reconcile(kTemplateUid));
    EXPECT_FALSE(TemplateIs("Released"));
    EXPECT_TRUE(PathExists(paths_.Template(kTemplate)));
  });
  ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
  ASSERT_TRUE(Reconcile());
  ASSERT_TRUE(deleted);
  EXPECT_EQ(changed_templates_, std::vector<std::string>{kTemplateUid});
  ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
  EXPECT_TRUE(TemplateIs("Released"));
  EXPECT_TRUE(templates_->All().empty());
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
  EXPECT_FALSE(vm().paused || vm().frozen);
}

TEST_F(AgentCloneTest, ATemplateThatIsDeletedBeforeOrAfterItsCaptureGoesAtOnce) {
  Settle();
  AskForTemplate();
  const api::SnapshotTemplate wanted = *template_api_.live;
  for (const bool captured : {false, true}) {
    SCOPED_TRACE(captured);
    ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
    if (captured) {
      EXPECT_OK(Reconcile());
    }
    EXPECT_EQ(PathExists(paths_.TemplateRecord(kTemplate)), captured);
    DeleteTemplate();
    ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
    EXPECT_TRUE(TemplateIs("Released"));
    SettleAll();
    EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
    EXPECT_FALSE(vm().paused || vm().frozen);
    PutTemplate(wanted);
    RestartAll();
  }
}

TEST_F(AgentCloneTest, ATemplateOfOneThatSleepsIsDeletedDuringItsCapture) {
  Settle();
  Wish(api::OperatingMode::kSuspended);
  Settle();
  AskForTemplate();
  During(Step::kCopyGeneration, [&] {
    DeleteTemplate();
    EXPECT_OK(keeper_->Reconcile(kTemplateUid));
    EXPECT_FALSE(TemplateIs("Released"));
  });
  ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
  ASSERT_TRUE(Reconcile());
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
  SettleAll();
  EXPECT_TRUE(TemplateIs("Released"));
  EXPECT_EQ(Phase(), "Suspended");
  Wish(api::OperatingMode::kRunning);
  Settle();
  EXPECT_EQ(StartMode(), "Resume");
}

TEST_F(AgentCloneTest, ATemplateWhoseDeadlineComesDuringItsCaptureFailsWhenThatHasGivenUp) {
  Settle();
  AskForTemplate();
  During(Step::kCaptureState, [&] {
    clock_.Advance(6min);
    EXPECT_OK(keeper_->Reconcile(kTemplateUid));
    EXPECT_FALSE(TemplateIs("Failed")) << "it may come to its commit yet";
  });
  SettleAll();
  EXPECT_TRUE(TemplateIs("Failed"));
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
  EXPECT_FALSE(vm().paused || vm().frozen);
  const auto* failed = api::FindCondition(Template().conditions, "Failed");
  EXPECT_EQ(failed->message.find("not wanted"), std::string::npos) << failed->message;
}

TEST_F(AgentCloneTest, ATemplateThatWasJustCommittedIsNotCapturedOnceMore) {
  Settle();
  AskForTemplate();
  SettleAll();
  ASSERT_EQ(Template().phase, "Ready");
  machine_.steps.clear();
  agent_->WantCapture(kUid, kTemplate, template_api_.live->meta.key());
  Settle();
  EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "capture.prepare"), 0);
  EXPECT_TRUE(PathExists(paths_.Template(kTemplate)));
}

TEST_F(AgentCloneTest, ACommitDoesNotBringBackWhatWasRemoved) {
  TemplateRecord record;
  record.uid = kTemplate;
  record.name = "warm";
  EXPECT_FALSE(templates_->Commit(record));
  EXPECT_EQ(templates_->Find(kTemplate), nullptr);
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
}

TEST_F(AgentCloneTest, ASourceThatIsDeletedDuringACaptureGoesWhenThatHasEnded) {
  Settle();
  AskForTemplate();
  During(Step::kCaptureMemory, [&] { Delete(); });
  SettleAll();
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released"));
  EXPECT_TRUE(vm().Nothing());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
  EXPECT_EQ(Template().phase, "Ready") << "what was asked for, and is whole, is kept";
}

TEST_F(AgentCloneTest, ATemplateWhoseSourceIsDeletedBeforeItsCaptureSucceedsSaysSo) {
  Settle();
  AskForTemplate();
  ASSERT_TRUE(failpoint::Arm("agent.step.after.capture.memory=error(ENOSPC)"));
  During(Step::kCaptureMemory, [&] { Delete(); });
  SettleAll();
  failpoint::DisarmAll();
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released"));
  EXPECT_TRUE(vm().Nothing());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
  const auto* ready = api::FindCondition(Template().conditions, "Ready");
  EXPECT_EQ(ready->reason, "SourceNotReady") << "another of its name may come";
  clock_.Advance(5min);
  SettleAll();
  EXPECT_TRUE(TemplateIs("Failed"));
  EXPECT_NE(Template().error->message.find("web does not run on this node"), std::string::npos);
}

TEST_F(AgentCloneTest, ATemplateThatIsDeletedWhileACloneStartsIsInUseAndTheCloneStarts) {
  Settle();
  AskForTemplate();
  SettleAll();
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

TEST_F(AgentCloneTest, ARetainedTemplateIsReleasedAndItsFilesStay) {
  Settle();
  AskForTemplate();
  SettleAll();
  ChangeTemplate([&](api::SnapshotTemplate& object) {
    object.deletion_policy = api::DeletionPolicy::kRetain;
    object.meta.deletion_time = clock_.WallNow();
  });
  SettleAll();
  EXPECT_TRUE(TemplateIs("Released"));
  objects_.Remove({{"default", "warm"}, kTemplateUid, kube::ResourceVersion("9999")});
  template_api_.live.reset();
  clock_.Advance(48h);
  ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
  EXPECT_TRUE(PathExists(paths_.TemplateRecord(kTemplate)));
}

TEST_F(AgentCloneTest, AFileLeftByACaptureThatWasCutShortGoesAtTheNextStart) {
  ASSERT_TRUE(MakeDirectories(paths_.Template(kTemplate)));
  Restart();
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
}

TEST_F(AgentCloneTest, ACloneThatCannotStartIsBootedFromItsTemplatesDiskWhereItIsAskedFor) {
  Settle();
  AskForTemplate();
  SettleAll();
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

TEST_F(AgentCloneTest, ATemplateWhoseMemoryIsDamagedIsNotReadyUntilItIsWholeAgain) {
  Settle();
  AskForTemplate();
  SettleAll();
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
  Settle();
  AskForTemplate();
  SettleAll();
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
    const int starts = machine_.starts;
    ASSERT_TRUE(Reconcile(kSuccessor));
    EXPECT_EQ(machine_.starts, starts) << "what waits is not in the way of what is made ahead";
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
