// Templates as users and operators see them: captured, deleted at any moment, with the agent dying
// around every step.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "node-agent/sandbox/template_test_parts.h"
#include "src/common/base/sealed_json.h"

namespace dormouse {
namespace {

class AgentTemplateTest : public TemplatesTest {
 protected:
  void ExpectNotCapturedAsItSleeps() {
    EXPECT_FALSE(TemplateIs("Ready"));
    EXPECT_FALSE(Template().ready_to_use);
    const auto* ready = api::FindCondition(Template().conditions, "Ready");
    EXPECT_EQ(ready->reason, "SnapshotFailed");
    EXPECT_EQ(ready->message,
              "the guest is not known to have stood still when it was suspended, and no clone of "
              "it could become another sandbox; wake it, and it is captured then; it is tried "
              "again");
    EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
    EXPECT_EQ(Phase(), "Suspended");
    EXPECT_TRUE(vm().Nothing());
  }
};

TEST_F(AgentTemplateTest, ATemplateIsCapturedWithTwoWritesAndItsSourceRunsOn) {
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

TEST_F(AgentTemplateTest, ATemplateThatTheControllerDidNotFinalizeIsNotCaptured) {
  Settle();
  AskForTemplate();
  ChangeTemplate([](api::SnapshotTemplate& object) { object.meta.finalizers.clear(); });
  machine_.steps.clear();
  ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
  Settle();
  EXPECT_TRUE(machine_.steps.empty());
  const auto* ready = api::FindCondition(template_api_.live->status.conditions, "Ready");
  ASSERT_NE(ready, nullptr);
  EXPECT_EQ(ready->reason, "NotFinalized");
}

TEST_F(AgentTemplateTest, ATemplateThatCannotBeStartedHereSaysWhatDiffersBeforeAnybodyTries) {
  MakeTemplate();
  ASSERT_TRUE(TemplateIs("Compatible"));
  const auto again = keeper_->Reconcile(kTemplateUid);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->requeue_after(), 1min) << "nobody tells what goes meanwhile";
  const std::pair<const char*, const char*> cases[] = {
      {"v", "its VMM v is not on this node"},
      {"k", "its kernel k is not on this node"},
      {"i", "its initramfs i is not on this node"},
      {"d", "its base image d is not on this node"},
      {"53.0", "its VMM: cloud-hypervisor 53.0 is not supported"},
      {"cpu", "captured on the CPU cpu, this node has another"}};
  const auto expect_incompatible = [this](const std::string& why) {
    for (const char* condition : {"Compatible", "Ready"}) {
      EXPECT_FALSE(TemplateIs(condition));
      const auto* says = api::FindCondition(Template().conditions, condition);
      EXPECT_EQ(says->reason, "SnapshotIncompatible");
      EXPECT_EQ(says->message, why);
    }
    EXPECT_FALSE(Template().ready_to_use);
  };
  for (const auto& [differs, why] : cases) {
    SCOPED_TRACE(differs);
    template_api_.events.clear();
    machine_.missing = differs;
    machine_.cpu_model = machine_.missing == "cpu" ? "another" : "cpu";
    ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
    expect_incompatible(why);
    RestartAll();
    ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
    expect_incompatible(why);
    EXPECT_EQ(template_api_.events, std::vector<std::string>{"SnapshotIncompatible"}) << "once";
    machine_.missing.clear();
    machine_.cpu_model = "cpu";
    ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
    EXPECT_TRUE(TemplateIs("Compatible"));
    EXPECT_TRUE(Template().ready_to_use);
  }
}

TEST_F(AgentTemplateTest, OneThatIsDeletedDoesNotPassForCompatible) {
  MakeTemplate();
  AddClone(kSuccessor, "clone");
  SettleAll(kSuccessor);
  machine_.missing = "k";
  DeleteTemplate();
  ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
  ASSERT_EQ(Template().phase, "Deleting");
  EXPECT_FALSE(TemplateIs("Compatible"));
}

TEST_F(AgentTemplateTest, ATemplateTellsTheGuestAndTheNodeThatItWasCapturedOn) {
  Settle();
  Wish(api::OperatingMode::kSuspended);
  Settle();
  // It goes on with the disk in another machine.
  machine_.cpu_model = "another";
  AskForTemplate();
  SettleAll();
  ASSERT_TRUE(Template().compatibility);
  EXPECT_EQ(Template().compatibility->guest_version, "0.4.0");
  EXPECT_EQ(Template().compatibility->version, "53.0");
  EXPECT_EQ(Template().compatibility->cpu, "cpu") << "that its memory is of";
  EXPECT_FALSE(TemplateIs("Compatible"));
  RestartAll();
  SettleAll();
  EXPECT_EQ(Template().compatibility->guest_version, "0.4.0");
}

TEST_F(AgentTemplateTest, ARecordOfBeforeGuestsWereAskedIsRead) {
  TemplateRecord record;
  record.uid = kTemplate;
  record.vmm_version = "53.0";
  const Seal seal{"template", TemplateRecord::kVersion};
  std::string before;
  ASSERT_OK(OpenSealedJson(seal, EncodeTemplateRecord(record), [&](nlohmann::json body) {
    ASSERT_EQ(body["traits"].erase("guestVersion"), 1U);
    before = SealJson(seal, body);
  }));
  const auto decoded = DecodeTemplateRecord(before);
  ASSERT_OK(decoded);
  EXPECT_EQ(*decoded, record);
}

TEST_F(AgentTemplateTest, AnAgentThatDiesAroundAnyStepOfACaptureEndsWithItAndARunningSource) {
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

TEST_F(AgentTemplateTest, ACaptureThatFailsIsTriedAgainUntilItsDeadlineAndThenHasFailed) {
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

TEST_F(AgentTemplateTest, AStatusThatARestoredEtcdHasForgottenIsToldAnew) {
  Settle();
  AskForTemplate();
  const api::SnapshotTemplate snapshot = *template_api_.live;
  ChangeTemplate([](api::SnapshotTemplate&) {});
  SettleAll();
  ASSERT_EQ(Template().phase, "Ready");
  template_api_.live = snapshot;
  objects_.BeginReplace();
  objects_.Upsert({snapshot.meta.key(), snapshot.meta.uid, snapshot.meta.resource_version},
                  std::make_shared<api::SnapshotTemplate>(snapshot), true);
  objects_.EndReplace(snapshot.meta.resource_version);
  ASSERT_TRUE(keeper_->Reconcile(kTemplateUid));
  EXPECT_EQ(Template().phase, "Ready");
}

TEST_F(AgentTemplateTest, ATemplateOfANewerAgentIsLeftAloneAndSaidSo) {
  MakeTemplate();
  const std::string file = paths_.TemplateRecord(kTemplate);
  const int newer = TemplateRecord::kVersion + 1;
  const std::string text = SealJson({"template", newer, newer}, {{"as", "never seen"}});
  ASSERT_OK(WriteFileAtomically(file, text));
  RestartAll();
  DeleteTemplate();
  SettleAll();
  const auto* ready = api::FindCondition(Template().conditions, "Ready");
  EXPECT_EQ(ready->status, api::ConditionStatus::kUnknown);
  EXPECT_EQ(ready->reason, "AgentTooOld");
  EXPECT_FALSE(TemplateIs("Released"));
  EXPECT_EQ(ReadFile(file, 4096).value_or(""), text);
}

TEST_F(AgentTemplateTest, ACaptureThatKeepsFailingFreezesItsSourceLessAndLess) {
  Settle();
  AskForTemplate();
  ChangeTemplate([](api::SnapshotTemplate& object) { object.failure_deadline = 24h; });
  ASSERT_TRUE(failpoint::Arm("agent.step.before.capture.memory=error(ENOSPC)"));
  const auto freezes_within = [this](std::chrono::minutes time) {
    machine_.steps.clear();
    for (const auto until = clock_.Now() + time; clock_.Now() < until;) SettleAll();
    return std::count(machine_.steps.begin(), machine_.steps.end(), "guest.freeze");
  };
  EXPECT_GE(freezes_within(5min), 4) << "what passes is soon over";
  EXPECT_LE(freezes_within(60min), 12);
  failpoint::DisarmAll();
  clock_.Advance(5min);
  SettleAll();
  EXPECT_EQ(Template().phase, "Ready");
}

TEST_F(AgentTemplateTest, ATemplateWhoseFinalizerWasTakenAwayIsNotCapturedAnyMore) {
  Settle();
  AskForTemplate();
  ASSERT_TRUE(failpoint::Arm("agent.step.before.capture.memory=error(ENOSPC)"));
  SettleAll();
  ASSERT_EQ(Template().phase, "Capturing");
  objects_.Remove({{"default", "warm"}, kTemplateUid, {}});
  template_api_.live.reset();
  SettleAll();
  failpoint::DisarmAll();
  machine_.steps.clear();
  clock_.Advance(10min);
  SettleAll();
  EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "guest.freeze"), 0);
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
}

TEST_F(AgentTemplateTest, ATemplateWhoseFinalizerIsTakenAwayDuringItsCaptureStopsIt) {
  Settle();
  AskForTemplate();
  During(Step::kCaptureMemory, [this] {
    objects_.Remove({{"default", "warm"}, kTemplateUid, {}});
    template_api_.live.reset();
    EXPECT_TRUE(keeper_->Reconcile(kTemplateUid));
  });
  SettleAll();
  machine_.steps.clear();
  clock_.Advance(10min);
  SettleAll();
  EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "guest.freeze"), 0);
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
  EXPECT_FALSE(vm().paused || vm().frozen);
}

TEST_F(AgentTemplateTest, ACaptureWithoutRoomForTheSourcesRecordIsTheCapturesFailure) {
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

TEST_F(AgentTemplateTest, TheMetricsCountWhatATemplatesCaptureWroteAndHowLongItsSourceStoodStill) {
  const auto counted = [](const std::string& metric) {
    return Sample("dormouse_capture_" + metric, "kind=\"template\"");
  };
  const double bytes = counted("written_bytes_sum");
  const double seconds = counted("pause_window_seconds_sum");
  MakeTemplate();
  EXPECT_EQ(counted("written_bytes_sum"), bytes + 4096);
  EXPECT_NEAR(counted("pause_window_seconds_sum"), seconds + 0.012, 1e-9);
}

TEST_F(AgentTemplateTest, ATemplateOfOneThatSleepsLeavesItAsleep) {
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

TEST_F(AgentTemplateTest, OneThatSleepsAsItRanIsNotCapturedUntilItIsWoken) {
  Settle();
  machine_.captured_as_it_ran = true;
  Wish(api::OperatingMode::kSuspended);
  Settle();
  AskForTemplate();
  for (int lives = 0; lives < 2; ++lives) {
    SettleAll();
    ExpectNotCapturedAsItSleeps();
    RestartAll();
  }
  Wish(api::OperatingMode::kRunning);
  Settle();
  EXPECT_EQ(StartMode(), "Resume") << "only another could not go on from there";
  machine_.captured_as_it_ran = false;
  clock_.Advance(10s);
  SettleAll();
  EXPECT_EQ(Template().phase, "Ready");
}

TEST_F(AgentTemplateTest, OneThatWasFoundPausedForItsSuspendIsNotCapturedAsItSleeps) {
  Settle();
  machine_.disk_state = Machine::DiskState::kFull;
  agent_->TendDisks();
  Settle();
  ASSERT_TRUE(vm().paused);
  Wish(api::OperatingMode::kSuspended);
  Settle();
  machine_.disk_state = Machine::DiskState::kFine;
  agent_->TendDisks();
  AskForTemplate();
  SettleAll();
  ExpectNotCapturedAsItSleeps();
}

TEST_F(AgentTemplateTest, ATemplateThatIsDeletedStaysUntilNobodyNeedsItAndNamesWhoDoes) {
  MakeTemplate();
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

TEST_F(AgentTemplateTest, ATemplateThatIsDeletedDuringItsCaptureGoesWhenThatHasGivenUp) {
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

TEST_F(AgentTemplateTest, ATemplateThatIsDeletedDuringItsCommitGoesAfterIt) {
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

TEST_F(AgentTemplateTest, ATemplateThatIsDeletedBeforeOrAfterItsCaptureGoesAtOnce) {
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

TEST_F(AgentTemplateTest, ATemplateOfOneThatSleepsIsDeletedDuringItsCapture) {
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

TEST_F(AgentTemplateTest, ATemplateWhoseDeadlineComesDuringItsCaptureFailsWhenThatHasGivenUp) {
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

TEST_F(AgentTemplateTest, ATemplateThatWasJustCommittedIsNotCapturedOnceMore) {
  MakeTemplate();
  ASSERT_EQ(Template().phase, "Ready");
  machine_.steps.clear();
  agent_->WantCapture(kUid, kTemplate, template_api_.live->meta.key());
  Settle();
  EXPECT_EQ(std::count(machine_.steps.begin(), machine_.steps.end(), "capture.prepare"), 0);
  EXPECT_TRUE(PathExists(paths_.Template(kTemplate)));
}

TEST_F(AgentTemplateTest, ACommitDoesNotBringBackWhatWasRemoved) {
  TemplateRecord record;
  record.uid = kTemplate;
  record.name = "warm";
  EXPECT_FALSE(templates_->Commit(record));
  EXPECT_EQ(templates_->Find(kTemplate), nullptr);
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
}

TEST_F(AgentTemplateTest, ASourceThatIsDeletedDuringACaptureGoesWhenThatHasEnded) {
  Settle();
  AskForTemplate();
  During(Step::kCaptureMemory, [&] { Delete(); });
  SettleAll();
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released"));
  EXPECT_TRUE(vm().Nothing());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
  EXPECT_EQ(Template().phase, "Ready") << "what was asked for, and is whole, is kept";
}

TEST_F(AgentTemplateTest, ATemplateWhoseSourceIsDeletedBeforeItsCaptureSucceedsSaysSo) {
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

TEST_F(AgentTemplateTest, ARetainedTemplateIsReleasedAndItsFilesStay) {
  MakeTemplate();
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

TEST_F(AgentTemplateTest, AFileLeftByACaptureThatWasCutShortGoesAtTheNextStart) {
  ASSERT_TRUE(MakeDirectories(paths_.Template(kTemplate)));
  Restart();
  EXPECT_FALSE(PathExists(paths_.Template(kTemplate)));
}

}  // namespace
}  // namespace dormouse
