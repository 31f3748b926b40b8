// A workload's end, and what it costs until then: the agent with the queue that it runs behind.
#include "node-agent/sandbox/agent_test_parts.h"
#include "src/common/kube/controller_loop.h"

namespace dormouse {
namespace {

class AgentWorkloadTest : public AgentTest {
 protected:
  AgentWorkloadTest() {
    Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command = {"job"}; });
    enqueued_.push_back(kUid.text());
    Turn();
  }
  // Whatever is due, and what comes of it.
  void Turn() {
    do {
      for (const std::string& uid : std::exchange(enqueued_, {})) queue_.Add(uid);
    } while (loop_.RunOne());
  }
  void Change(const std::function<void(api::Sandbox&)>& change) {
    AgentTest::Change(change);
    enqueued_.push_back(kUid.text());
  }
  bool Awaited() { return machine_.awaited.contains(kUid); }
  // The machine's word: the workload has ended, or the guest does not say.
  void Tell() {
    ASSERT_EQ(machine_.awaited.erase(kUid), 1u);
    agent_->OnMachineChanged(kUid.text());
    Turn();
  }

  metrics::Registry registry_;
  kube::WorkQueue queue_{{.name = "test", .clock = &clock_, .metrics = &registry_}};
  kube::ControllerLoop loop_{{.name = "test", .metrics = &registry_},
                             queue_,
                             [this](const std::string& uid) { return agent_->Reconcile(uid); }};
};

TEST_F(AgentWorkloadTest, ItsEndIsSeenAtOnceAndItsExitCodeTold) {
  ASSERT_TRUE(Awaited());
  vm().workload = FakeMachine::Workload::kExited;
  vm().exit_code = 3;
  Tell();
  EXPECT_EQ(Phase(), "Failed");
  EXPECT_EQ(control_plane_.live->status.exit_code, 3);
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Finished"));
  EXPECT_TRUE(vm().Nothing());
  EXPECT_FALSE(Awaited());
}

const api::Condition& ConditionOf(const FakeControlPlane& api, const char* type) {
  static const api::Condition none;
  const auto* found = api::FindCondition(api.live->status.conditions, type);
  return found == nullptr ? none : *found;
}

TEST_F(AgentWorkloadTest, OneThatEndedWithZeroIsCompletedWhereverItIsTold) {
  const std::string mode = control_plane_.live->status.vm.start_mode;
  EXPECT_EQ(mode, "Boot");
  vm().workload = FakeMachine::Workload::kExited;
  Tell();
  EXPECT_EQ(Phase(), "Finished");
  for (const char* type : {"Ready", "GuestReady", "Finished"})
    EXPECT_EQ(ConditionOf(control_plane_, type).reason, "Completed") << type;
  EXPECT_EQ(ConditionOf(control_plane_, "GuestReady").message, "no guest runs");
  EXPECT_EQ(control_plane_.live->status.exit_code, 0);
}

TEST_F(AgentWorkloadTest, OneThatIsStartedAgainHasEndedAndIsNotCompleted) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.restart_policy = api::RestartPolicy::kAlways; });
  Turn();
  vm().workload = FakeMachine::Workload::kExited;
  Tell();
  EXPECT_EQ(ConditionOf(control_plane_, "Ready").reason, "WorkloadEnded");
  EXPECT_EQ(ConditionOf(control_plane_, "GuestReady").reason, "WorkloadEnded");
}

TEST_F(AgentWorkloadTest, AProgramThatCannotBeRunIsToldAsTheGuestSays) {
  vm().workload = FakeMachine::Workload::kExited;
  vm().exit_code = 127;
  vm().detail = "run job: No such file or directory";
  Tell();
  EXPECT_EQ(ConditionOf(control_plane_, "Ready").reason, "WorkloadFailed");
  EXPECT_EQ(ConditionOf(control_plane_, "Ready").message,
            "the workload ended with exit code 127: run job: No such file or directory");
}

// What a guest refuses as it is set up.
class AgentRefusedTest : public AgentTest {
 protected:
  void Start() {
    Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command = {"job"}; });
    ASSERT_TRUE(agent_->Reconcile(kUid.text()));
  }
};

TEST_F(AgentRefusedTest, AnUnknownUserIsTheManifestsFaultAndNotTriedForEver) {
  machine_.configure_error = Error(ErrorCode::kInvalid, "user: no user \"app\" in /etc/passwd");
  Change([](api::Sandbox& sandbox) { sandbox.spec.restart_policy = api::RestartPolicy::kAlways; });
  Start();
  EXPECT_EQ(Phase(), "Failed");
  for (const char* type : {"Ready", "GuestReady", "Finished"})
    EXPECT_EQ(ConditionOf(control_plane_, type).reason, "InvalidSpec") << type;
  EXPECT_NE(ConditionOf(control_plane_, "Ready").message.find("user: no user \"app\""),
            std::string::npos);
  EXPECT_TRUE(vm().Nothing());
  EXPECT_EQ(control_plane_.live->status.restart_count, 0);
  const size_t steps = machine_.steps.size();
  ASSERT_TRUE(agent_->Reconcile(kUid.text()));
  EXPECT_EQ(machine_.steps.size(), steps);
}

TEST_F(AgentRefusedTest, AMissingDirectoryIsTheManifestsFaultToo) {
  machine_.start_error = Error(ErrorCode::kInvalid, "workingDir: change to /srv: ENOENT");
  Start();
  EXPECT_EQ(ConditionOf(control_plane_, "Ready").reason, "InvalidSpec");
  EXPECT_TRUE(vm().Nothing());
}

TEST_F(AgentRefusedTest, AGuestThatDoesNotAnswerIsNoErrorOfTheNode) {
  machine_.configure_error = Error(ErrorCode::kDeadline, "no answer in 10 s");
  Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command = {"job"}; });
  EXPECT_FALSE(agent_->Reconcile(kUid.text())) << "tried again";
  EXPECT_EQ(ConditionOf(control_plane_, "Ready").reason, "GuestAgentTimeout");
  EXPECT_EQ(ConditionOf(control_plane_, "GuestReady").message,
            "the guest agent answers, and is being set up");
}

TEST_F(AgentRefusedTest, WhatCameFromAnOlderSchemaIsNotStartedAndSaysWhy) {
  Change([](api::Sandbox& sandbox) {
    sandbox.spec.workload.env = {{"BIG", std::string(100'000, 'x')}};
  });
  ASSERT_TRUE(agent_->Reconcile(kUid.text()));
  EXPECT_EQ(Phase(), "Failed");
  EXPECT_EQ(ConditionOf(control_plane_, "Ready").reason, "InvalidSpec");
  EXPECT_EQ(ConditionOf(control_plane_, "Ready").message.substr(0, 18), "spec.env[0].value:");
  EXPECT_TRUE(machine_.steps.empty());
}

TEST_F(AgentWorkloadTest, AGuestThatWorksIsAskedNothingUntilTheResync) {
  const int asked = machine_.guest_asked;
  const int observations = machine_.observations;
  for (int second = 1; second < 60; ++second) {
    clock_.Advance(1s);
    Turn();
  }
  EXPECT_EQ(machine_.guest_asked, asked);
  EXPECT_EQ(machine_.observations, observations);
  EXPECT_TRUE(Awaited());
  vm().workload = FakeMachine::Workload::kExited;
  clock_.Advance(1s);
  Turn();
  EXPECT_EQ(Phase(), "Finished") << "whatever was missed is seen then";
}

TEST_F(AgentWorkloadTest, ABrokenConnectionLeadsToOneLookAndIsAskedAnew) {
  const int asked = machine_.guest_asked;
  const size_t writes = control_plane_.writes.size();
  Tell();
  EXPECT_EQ(machine_.guest_asked, asked + 1);
  EXPECT_TRUE(Awaited());
  EXPECT_EQ(control_plane_.writes.size(), writes);
  EXPECT_EQ(Phase(), "Running");
}

TEST_F(AgentWorkloadTest, AGuestThatCannotBeWaitedForIsAskedEachSecond) {
  machine_.refuses_to_wait = true;
  Tell();
  const int asked = machine_.guest_asked;
  for (int second = 0; second < 5; ++second) {
    clock_.Advance(1s);
    Turn();
  }
  EXPECT_EQ(machine_.guest_asked, asked + 5);
  vm().workload = FakeMachine::Workload::kExited;
  clock_.Advance(1s);
  Turn();
  EXPECT_EQ(Phase(), "Finished");
}

TEST_F(AgentWorkloadTest, ASandboxWithoutAWorkloadIsNotWaitedFor) {
  vm().workload = FakeMachine::Workload::kNone;
  Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command.clear(); });
  Tell();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_FALSE(Awaited());
}

// That no guest is asked while it is frozen or paused, the machine of these tests sees to.
TEST_F(AgentWorkloadTest, OneThatSleepsIsNotAskedAndOneThatWokeIs) {
  Change(
      [](api::Sandbox& sandbox) { sandbox.spec.operating_mode = api::OperatingMode::kSuspended; });
  Turn();
  ASSERT_EQ(Phase(), "Suspended");
  EXPECT_FALSE(Awaited());
  Change([](api::Sandbox& sandbox) { sandbox.spec.operating_mode = api::OperatingMode::kRunning; });
  Turn();
  ASSERT_EQ(Phase(), "Running");
  EXPECT_TRUE(Awaited());
}

TEST_F(AgentWorkloadTest, OneWhoseCaptureFailedIsAskedAgain) {
  ASSERT_TRUE(failpoint::Arm("agent.step.before.capture.state=1*error(EIO)"));
  Change(
      [](api::Sandbox& sandbox) { sandbox.spec.operating_mode = api::OperatingMode::kSuspended; });
  Turn();
  ASSERT_EQ(vm().workload, FakeMachine::Workload::kRunning);
  EXPECT_FALSE(vm().frozen || vm().paused);
  EXPECT_TRUE(Awaited());
}

TEST_F(AgentWorkloadTest, OneThatStandsStillForWantOfDiskIsNotAskedUntilItGoesOn) {
  machine_.disk_state = Machine::DiskState::kFull;
  agent_->TendDisks();
  Turn();
  ASSERT_TRUE(vm().paused);
  EXPECT_FALSE(Awaited());
  machine_.disk_state = Machine::DiskState::kFine;
  agent_->TendDisks();
  Turn();
  ASSERT_FALSE(vm().paused);
  EXPECT_TRUE(Awaited());
}

TEST_F(AgentWorkloadTest, AnAgentThatStartsAsksAnew) {
  Restart();
  EXPECT_FALSE(Awaited());
  enqueued_.push_back(kUid.text());
  Turn();
  EXPECT_TRUE(Awaited());
}

TEST_F(AgentWorkloadTest, WhatIsDeletedIsNotAsked) {
  Delete();
  enqueued_.push_back(kUid.text());
  Turn();
  EXPECT_TRUE(vm().Nothing());
  EXPECT_FALSE(Awaited());
}

TEST_F(AgentWorkloadTest, ItsEndIsAwaitedWhileTheApiServerIsAway) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.restart_policy = api::RestartPolicy::kAlways; });
  Turn();
  control_plane_.down = true;
  machine_.Crash(kUid);
  machine_.awaited.clear();
  agent_->OnMachineChanged(kUid.text());
  for (int second = 0; second < 5; ++second) {
    Turn();
    clock_.Advance(1s);
  }
  EXPECT_EQ(vm().workload, FakeMachine::Workload::kRunning);
  EXPECT_TRUE(Awaited()) << "started anew, and told to nobody";
}

}  // namespace
}  // namespace dormouse
