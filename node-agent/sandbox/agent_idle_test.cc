// Idle timeouts, as the controller and a user see them.
#include <algorithm>

#include "node-agent/sandbox/agent_test_parts.h"

namespace dormouse {
namespace {

class AgentIdleTest : public AgentTest {
 protected:
  AgentIdleTest() {
    machine_.activity[kUid] = {};
    Change([](api::Sandbox& sandbox) { sandbox.spec.idle = api::Idle{100s}; });
    Settle();
  }
  // As the ticker does it, each second; what that asks for is reconciled.
  void Pass(std::chrono::seconds time) {
    for (int second = 0; second < time.count(); ++second) {
      clock_.Advance(1s);
      agent_->TendActivity();
      const bool asked = !std::exchange(enqueued_, {}).empty();
      EXPECT_TRUE(!asked || Reconcile());
    }
  }
  void WorkFor(std::chrono::seconds time, std::chrono::milliseconds each_second) {
    for (int second = 0; second < time.count(); ++second) {
      machine_.activity[kUid].cpu_time += each_second;
      Pass(1s);
    }
  }
  std::string Idle() {
    const auto* idle = api::FindConditionNow(*control_plane_.live, api::condition::kIdle);
    return idle == nullptr ? "" : idle->status == api::ConditionStatus::kTrue ? "True" : "False";
  }
  // As the controller does it.
  void SuspendForIdleness() {
    Change([](api::Sandbox& sandbox) {
      ++sandbox.meta.generation;
      sandbox.spec.operating_mode = api::OperatingMode::kSuspended;
      sandbox.meta.annotations[api::kIdleSuspendAnnotation] =
          api::IdleSuspendMark(sandbox.meta, sandbox.meta.generation);
    });
  }
};

TEST_F(AgentIdleTest, OneInWhichNothingHappensIsIdleWhenItsTimeIsOver) {
  const auto& status = control_plane_.live->status;
  ASSERT_TRUE(status.idle_deadline && status.last_active_time);
  EXPECT_EQ(*status.idle_deadline - *status.last_active_time, 100s);
  const WallTime deadline = *status.idle_deadline;
  Pass(std::chrono::duration_cast<std::chrono::seconds>(deadline - clock_.WallNow()) - 3s);
  EXPECT_EQ(Idle(), "False");
  Pass(6s);
  EXPECT_EQ(Idle(), "True");
  EXPECT_LE(clock_.WallNow() - deadline, 5s);
}

TEST_F(AgentIdleTest, WhileNothingHappensNothingIsWritten) {
  Pass(3s);
  const size_t writes = control_plane_.writes.size();
  Pass(60s);
  EXPECT_EQ(control_plane_.writes.size(), writes);
}

TEST_F(AgentIdleTest, ItsUserIsWarnedOnceBeforeTheAct) {
  const auto warnings = [this] {
    return std::count_if(control_plane_.events.begin(), control_plane_.events.end(),
                         [](const std::string& event) {
                           return event.starts_with(
                               "Normal IdleTimeout: nothing happens in it: it is "
                               "suspended at ");
                         });
  };
  Pass(55s);
  EXPECT_EQ(warnings(), 0);
  Pass(30s);
  EXPECT_EQ(warnings(), 1);
  EXPECT_EQ(Idle(), "False");
}

TEST_F(AgentIdleTest, AJobThatComputesIsActiveAndABackgroundTickIsNot) {
  WorkFor(150s, 100ms);
  EXPECT_EQ(Idle(), "False");
  WorkFor(110s, 10ms);
  EXPECT_EQ(Idle(), "True") << "1 % of a processor";
}

TEST_F(AgentIdleTest, OnePacketIsActivity) {
  Pass(90s);
  ++machine_.activity[kUid].packets;
  Pass(90s);
  EXPECT_EQ(Idle(), "False");
}

TEST_F(AgentIdleTest, AnOpenSessionIsActivityUntilItEnds) {
  auto access = agent_->Guest({"default", "web"});
  ASSERT_TRUE(access);
  Pass(300s);
  EXPECT_EQ(Idle(), "False");
  access->session.reset();
  Pass(90s);
  EXPECT_EQ(Idle(), "False") << "its time begins when the session ends";
  Pass(20s);
  EXPECT_EQ(Idle(), "True");
}

TEST_F(AgentIdleTest, WhatCannotBeReadCountsAsActive) {
  machine_.activity.clear();
  Pass(300s);
  EXPECT_EQ(Idle(), "False");
}

TEST_F(AgentIdleTest, AnAgentThatIsNewDoesNotKnowSoItCountsAsActive) {
  Pass(90s);
  Restart();
  Settle();
  Pass(60s);
  EXPECT_EQ(Idle(), "False");
}

TEST_F(AgentIdleTest, ASuspendForIdlenessIsCarriedOutAndSaysSo) {
  Pass(110s);
  ASSERT_EQ(Idle(), "True");
  SuspendForIdleness();
  Settle();
  EXPECT_EQ(Phase(), "Suspended");
  EXPECT_EQ(ReadyReason(), "IdleTimeout");
  EXPECT_FALSE(control_plane_.live->status.idle_deadline) << "the timer stands still";
}

TEST_F(AgentIdleTest, ATickOfTheGuestRightBeforeItSleepsIsNoActivity) {
  Pass(110s);
  SuspendForIdleness();
  clock_.Advance(10ms);
  machine_.activity[kUid].cpu_time += 5ms;
  Settle();
  EXPECT_EQ(Phase(), "Suspended");
}

TEST_F(AgentIdleTest, OneThatIsTouchedBeforeItSleepsRunsOnAndTellsTheController) {
  Pass(110s);
  ASSERT_EQ(Idle(), "True");
  SuspendForIdleness();
  ++machine_.activity[kUid].packets;
  Settle();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_EQ(Idle(), "False");
  EXPECT_FALSE(vm().paused);
}

TEST_F(AgentIdleTest, ASuspendThatAPersonAskedForIsCarriedOutThoughItIsBusy) {
  ++machine_.activity[kUid].packets;
  Wish(api::OperatingMode::kSuspended);
  Settle();
  EXPECT_EQ(Phase(), "Suspended");
  EXPECT_EQ(ReadyReason(), "SuspendedByUser");
}

TEST_F(AgentIdleTest, OneThatWokeHasItsWholeTimeAgain) {
  Pass(110s);
  SuspendForIdleness();
  Settle();
  clock_.Advance(3600s);
  Wish(api::OperatingMode::kRunning);
  Settle();
  EXPECT_EQ(Phase(), "Running");
  Pass(60s);
  EXPECT_EQ(Idle(), "False");
}

TEST_F(AgentIdleTest, OneWhoseObjectIsGoneIsWatchedNoMore) {
  store_.Remove({control_plane_.live->meta.key(), kUid.text(), {}});
  control_plane_.live.reset();
  ASSERT_TRUE(Reconcile());
  machine_.activity.clear();
  for (int second = 0; second < 300; ++second) {
    clock_.Advance(1s);
    agent_->TendActivity();
  }
  EXPECT_TRUE(enqueued_.empty());
}

TEST_F(AgentIdleTest, WithoutATimeoutNothingIsSaid) {
  Change([](api::Sandbox& sandbox) {
    sandbox.spec.idle.reset();
    ++sandbox.meta.generation;
  });
  Settle();
  EXPECT_EQ(Idle(), "");
  EXPECT_FALSE(control_plane_.live->status.idle_deadline);
}

}  // namespace
}  // namespace dormouse
