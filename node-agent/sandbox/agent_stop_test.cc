// Stopped, and started again: what a user sees of it.
#include "node-agent/sandbox/agent_test_parts.h"

namespace dormouse {
namespace {

class AgentStopTest : public AgentTest {
 protected:
  AgentStopTest() {
    Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command = {"serve"}; });
    Settle();
  }
  void RestartAt(WallTime when) {
    Change([when](api::Sandbox& sandbox) {
      sandbox.spec.restarted_at = when;
      ++sandbox.meta.generation;
    });
  }
  bool HasFinished() {
    return api::IsTrue(control_plane_.live->status.conditions, api::condition::kFinished);
  }
};

TEST_F(AgentStopTest, AStoppedMachineKeepsItsDiskAndStartsAgain) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.termination_grace = 7s; });
  Wish(api::OperatingMode::kStopped);
  Settle();
  EXPECT_EQ(machine_.graces, std::vector{7s});
  EXPECT_EQ(Phase(), "Stopped");
  EXPECT_EQ(ReadyReason(), "Stopped");
  EXPECT_FALSE(HasFinished());
  EXPECT_TRUE(vm().Nothing());
  EXPECT_TRUE(records_->Find(kUid)) << "its address and its disk are kept";
  EXPECT_EQ(control_plane_.events.back(),
            "Normal Stopped: powered off, as operatingMode asks for; its disk is kept");

  Restart();
  Settle();
  EXPECT_EQ(Phase(), "Stopped") << "an agent that is new leaves it off";

  Wish(api::OperatingMode::kRunning);
  Settle();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_EQ(vm().workload, FakeMachine::Workload::kRunning);
  EXPECT_EQ(control_plane_.live->status.restart_count, 0)
      << "a start that was asked for is no restart";
}

TEST_F(AgentStopTest, OneThatDoesNotObeyIsCutOffAfterItsGrace) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.termination_grace = 20s; });
  vm().ignores_stop = true;
  Wish(api::OperatingMode::kStopped);
  Settle();  // 10 s
  EXPECT_EQ(Phase(), "Stopping");
  EXPECT_EQ(ReadyReason(), "Stopping");
  EXPECT_EQ(machine_.graces.size(), 1u) << "it is told once";
  clock_.Advance(30s);
  Settle();
  EXPECT_EQ(Phase(), "Stopped");
  EXPECT_TRUE(vm().Nothing());
}

TEST_F(AgentStopTest, OneThatAnswersNothingIsCutOffAtOnce) {
  vm().silent = true;
  Wish(api::OperatingMode::kStopped);
  Settle();
  EXPECT_EQ(Phase(), "Stopped");
}

TEST_F(AgentStopTest, WantedAgainWhileItPowersOffItStarts) {
  vm().ignores_stop = true;
  Wish(api::OperatingMode::kStopped);
  ASSERT_TRUE(Reconcile());
  Wish(api::OperatingMode::kRunning);
  vm().ignores_stop = false;
  machine_.Crash(kUid);
  agent_->OnMachineChanged(kUid.text());
  Settle();
  EXPECT_EQ(Phase(), "Running");
}

TEST_F(AgentStopTest, AFinishedWorkloadIsRunOnceMore) {
  vm().workload = FakeMachine::Workload::kExited;
  vm().exit_code = 3;
  Settle();
  ASSERT_EQ(Phase(), "Failed");
  ASSERT_TRUE(HasFinished());
  RestartAt(clock_.WallNow());
  Settle();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_FALSE(HasFinished());
  EXPECT_EQ(control_plane_.live->status.restart_count, 1);
  EXPECT_EQ(vm().workload, FakeMachine::Workload::kRunning);
}

TEST_F(AgentStopTest, ARunningMachineIsStartedAgainOnce) {
  const int first = vm().pid;
  RestartAt(clock_.WallNow());
  Settle();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_NE(vm().pid, first);
  const int second = vm().pid;
  Restart();
  Settle();
  EXPECT_EQ(vm().pid, second);
}

TEST_F(AgentStopTest, ARestartThatWasAskedForBeforeItWasMadeIsNone) {
  ASSERT_TRUE(RemoveTree(paths_.Sandboxes()));
  machine_.vms.clear();
  RestartAt(clock_.WallNow());
  Restart();
  Settle();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_EQ(control_plane_.live->status.restart_count, 0);
  EXPECT_TRUE(machine_.graces.empty());
}

TEST_F(AgentStopTest, OneThatSleepsIsStoppedAndLosesItsMemory) {
  Wish(api::OperatingMode::kSuspended);
  Settle();
  ASSERT_EQ(Phase(), "Suspended");
  Wish(api::OperatingMode::kStopped);
  Settle();
  EXPECT_EQ(Phase(), "Stopped");
  EXPECT_TRUE(vm().generations.empty());
  Wish(api::OperatingMode::kRunning);
  Settle();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_EQ(control_plane_.live->status.vm.start_mode, "Boot");
}

TEST_F(AgentStopTest, AStartNeedsRoomLikeAWake) {
  options_.memory_bytes = 512 << 20;
  Restart();
  Wish(api::OperatingMode::kStopped);
  Settle();
  Record other = *records_->Find(kUid);
  other.uid = kSuccessor;
  other.slot += 1;
  other.intent = Intent::kRun;
  ASSERT_TRUE(records_->Save(other));
  Wish(api::OperatingMode::kRunning);
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(Phase(), "Stopped");
  EXPECT_EQ(ReadyReason(), "NoCapacity");
  ASSERT_TRUE(records_->Remove(kSuccessor));
  Settle();
  EXPECT_EQ(Phase(), "Running");
}

TEST_F(AgentStopTest, ADeletionLetsAWorkloadWindUp) {
  vm().ignores_stop = true;
  Delete();
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(Phase(), "Terminating");
  EXPECT_FALSE(vm().Nothing());
  EXPECT_EQ(machine_.graces, std::vector{30s});
  clock_.Advance(60s);
  Settle();
  EXPECT_TRUE(vm().Nothing());
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released"));
}

}  // namespace
}  // namespace dormouse
