#include "cli/wish.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

namespace dormouse::cli {
namespace {

using api::Condition;
using api::ConditionStatus;
using api::OperatingMode;
using nlohmann::json;
using testing::HasSubstr;

constexpr int64_t kGeneration = 3;
const Wish kSuspend{OperatingMode::kSuspended, kGeneration};
const Wish kResume{OperatingMode::kRunning, kGeneration};

/// As it is when the agent has seen the wish.
api::Sandbox Seen(const Wish& wish, const char* phase) {
  api::Sandbox sandbox;
  sandbox.meta.generation = wish.generation;
  sandbox.spec.operating_mode = wish.mode;
  sandbox.status.observed_generation = wish.generation;
  sandbox.status.phase = phase;
  return sandbox;
}

void Say(api::Sandbox* sandbox, const char* type, ConditionStatus status, const char* reason,
         const char* message = "", int64_t generation = kGeneration) {
  api::SetCondition(&sandbox->status.conditions,
                    Condition{type, status, reason, message, generation, {}}, {});
}

TEST(JudgeTest, ASuspendIsDoneWhenThePhaseSpeaksOfThisSpec) {
  api::Sandbox sandbox = Seen(kSuspend, "Suspended");
  EXPECT_EQ(Judge(sandbox, kSuspend).standing, Standing::kDone);
  sandbox.status.observed_generation = kGeneration - 1;
  EXPECT_EQ(Judge(sandbox, kSuspend).standing, Standing::kWaiting);
}

TEST(JudgeTest, AResumeIsDoneWhenItRunsAndIsReady) {
  api::Sandbox sandbox = Seen(kResume, "Running");
  EXPECT_EQ(Judge(sandbox, kResume).standing, Standing::kWaiting);
  Say(&sandbox, "Ready", ConditionStatus::kTrue, "Ready", "", kGeneration - 1);
  EXPECT_EQ(Judge(sandbox, kResume).standing, Standing::kWaiting);
  Say(&sandbox, "Ready", ConditionStatus::kTrue, "Ready");
  EXPECT_EQ(Judge(sandbox, kResume).standing, Standing::kDone);
  sandbox.status.observed_generation = kGeneration - 1;
  EXPECT_EQ(Judge(sandbox, kResume).standing, Standing::kWaiting);
}

TEST(JudgeTest, AFailedCaptureEndsTheWaitWithItsWords) {
  api::Sandbox sandbox = Seen(kSuspend, "Running");
  Say(&sandbox, "Suspended", ConditionStatus::kFalse, "Suspending");
  EXPECT_EQ(Judge(sandbox, kSuspend).standing, Standing::kWaiting);
  Say(&sandbox, "Suspended", ConditionStatus::kFalse, "SnapshotFailed", "write memory: ENOSPC");
  const Progress progress = Judge(sandbox, kSuspend);
  EXPECT_EQ(progress.standing, Standing::kFailed);
  EXPECT_EQ(progress.why, "SnapshotFailed: write memory: ENOSPC");
}

TEST(JudgeTest, AFailureOfAnEarlierSpecIsNotThisOnes) {
  api::Sandbox suspending = Seen(kSuspend, "Running");
  Say(&suspending, "Suspended", ConditionStatus::kFalse, "SnapshotFailed", "", kGeneration - 1);
  EXPECT_EQ(Judge(suspending, kSuspend).standing, Standing::kWaiting);
  api::Sandbox resuming = Seen(kResume, "Suspended");
  Say(&resuming, "Ready", ConditionStatus::kFalse, "ResumeFailed", "", kGeneration - 1);
  EXPECT_EQ(Judge(resuming, kResume), (Progress{Standing::kWaiting, "Suspended", "", ""}));
}

TEST(JudgeTest, AWakeEndsWithWhatNoWaitingMends) {
  for (const char* reason :
       {"ResumeFailed", "SnapshotIncompatible", "InvalidSpec", "ImageDamaged", "CoWExhausted"}) {
    api::Sandbox sandbox = Seen(kResume, "Suspended");
    Say(&sandbox, "Ready", ConditionStatus::kFalse, reason, "the reason");
    const Progress progress = Judge(sandbox, kResume);
    EXPECT_EQ(progress.standing, Standing::kFailed) << reason;
    EXPECT_EQ(progress.why, std::string(reason) + ": the reason");
  }
}

TEST(JudgeTest, WhatMayPassIsWaitedForAndShown) {
  for (const char* reason : {"NoCapacity", "NodeDiskFull", "GuestAgentTimeout"}) {
    api::Sandbox sandbox = Seen(kResume, "Suspended");
    Say(&sandbox, "Ready", ConditionStatus::kFalse, reason, "the reason");
    const Progress progress = Judge(sandbox, kResume);
    EXPECT_EQ(progress.standing, Standing::kWaiting) << reason;
    EXPECT_EQ(progress.why, std::string(reason) + ": the reason");
  }
  api::Sandbox unplaced = Seen(kResume, "");
  unplaced.status.observed_generation = 0;
  Say(&unplaced, "Scheduled", ConditionStatus::kFalse, "SourceNotReady",
      "template t1 is not ready");
  EXPECT_EQ(Judge(unplaced, kResume), (Progress{Standing::kWaiting, "Pending", "",
                                                "SourceNotReady: template t1 is not ready"}));
}

TEST(JudgeTest, ALostNodeIsShownWhateverSpecItSpeaksOf) {
  api::Sandbox sandbox = Seen(kSuspend, "Running");
  sandbox.status.observed_generation = 1;
  Say(&sandbox, "Ready", ConditionStatus::kUnknown, "NodeLost", "node-a", 1);
  EXPECT_EQ(Judge(sandbox, kSuspend),
            (Progress{Standing::kWaiting, "Running", "", "NodeLost: node-a"}));
}

TEST(JudgeTest, ASandboxThatHasEndedIsNotWaitedFor) {
  for (const Wish& wish : {kSuspend, kResume}) {
    api::Sandbox sandbox = Seen(wish, "Finished");
    Say(&sandbox, "Finished", ConditionStatus::kTrue, "Completed", "exit code 0");
    EXPECT_EQ(Judge(sandbox, wish).standing, Standing::kFailed);
    EXPECT_EQ(Judge(sandbox, wish).why, "it has ended: Completed: exit code 0");
    sandbox = Seen(wish, "Failed");
    Say(&sandbox, "Ready", ConditionStatus::kFalse, "VMMCrashed", "killed");
    EXPECT_EQ(Judge(sandbox, wish).why, "it has ended: VMMCrashed: killed");
    sandbox.status.conditions.clear();
    EXPECT_EQ(Judge(sandbox, wish).standing, Standing::kFailed);
  }
}

TEST(JudgeTest, ASandboxThatGoesOrIsToldOtherwiseIsNotWaitedFor) {
  api::Sandbox going = Seen(kSuspend, "Running");
  going.meta.deletion_time = WallTime{};
  EXPECT_EQ(Judge(going, kSuspend).standing, Standing::kFailed);
  api::Sandbox flipped = Seen(kSuspend, "Running");
  flipped.meta.generation = kGeneration + 1;
  EXPECT_EQ(Judge(flipped, kSuspend).standing, Standing::kWaiting) << "another field was changed";
  flipped.spec.operating_mode = OperatingMode::kRunning;
  EXPECT_EQ(Judge(flipped, kSuspend).why, "someone else has set operatingMode to Running");
}

TEST(JudgeTest, BytesAreThoseOfThisSuspendOnceItHasEnded) {
  api::Sandbox sandbox = Seen(kSuspend, "Suspending");
  sandbox.status.resources = api::Resources{1, 512LL << 20};
  sandbox.status.snapshot = api::SandboxStatus::Snapshot{96LL << 20, 2LL << 20, {}, 1};
  EXPECT_EQ(Judge(sandbox, kSuspend).amount, "512 MiB RAM");
  sandbox.status.phase = "Suspended";
  EXPECT_EQ(Judge(sandbox, kSuspend).amount, "2 MiB written, 96 MiB kept");
  sandbox.spec.operating_mode = OperatingMode::kRunning;
  EXPECT_EQ(Judge(sandbox, kResume).amount, "96 MiB kept");
}

TEST(JudgeTest, ThePhaseAndReasonsOfAHostileGuestStayOnTheirLine) {
  api::Sandbox sandbox = Seen(kResume, "Suspended");
  Say(&sandbox, "Ready", ConditionStatus::kFalse, "ResumeFailed", "console: \x1b[2J\ngone");
  EXPECT_EQ(Judge(sandbox, kResume).why, "ResumeFailed: console:  [2J gone");
}

json Template(json status) {
  return {{"kind", "SnapshotTemplate"},
          {"metadata",
           {{"name", "t1"}, {"namespace", "ns"}, {"uid", "8a5f"}, {"resourceVersion", "7"}}},
          {"spec", {{"source", {{"sandbox", {{"name", "s1"}}}}}}},
          {"status", std::move(status)}};
}

json Said(const char* type, const char* status, const char* reason, const char* message) {
  return {{"type", type}, {"status", status}, {"reason", reason}, {"message", message}};
}

TEST(JudgeTemplateTest, ItIsDoneWhenSandboxesCanStartFromIt) {
  EXPECT_EQ(*JudgeTemplate(Template(json::object())),
            (Progress{Standing::kWaiting, "Pending", "", ""}));
  EXPECT_EQ(*JudgeTemplate(Template({{"phase", "Capturing"}, {"memoryBytes", 512LL << 20}})),
            (Progress{Standing::kWaiting, "Capturing", "512 MiB RAM", ""}));
  EXPECT_EQ(*JudgeTemplate(Template({{"phase", "Ready"},
                                     {"readyToUse", true},
                                     {"memoryBytes", 512LL << 20},
                                     {"allocatedBytes", 97LL << 20}})),
            (Progress{Standing::kDone, "Ready", "97 MiB kept", ""}));
}

TEST(JudgeTemplateTest, ASourceThatSleepsOrIsNotThereIsWaitedForAndShown) {
  const json status{
      {"phase", "Pending"},
      {"conditions", {Said("Ready", "False", "SourceNotReady", "sandbox s1 is starting")}}};
  EXPECT_EQ(*JudgeTemplate(Template(status)), (Progress{Standing::kWaiting, "Pending", "",
                                                        "SourceNotReady: sandbox s1 is starting"}));
}

TEST(JudgeTemplateTest, AFailedCaptureSaysWhy) {
  const json by_condition{{"phase", "Failed"},
                          {"conditions", {Said("Failed", "True", "SnapshotFailed", "ENOSPC")}}};
  EXPECT_EQ(JudgeTemplate(Template(by_condition))->standing, Standing::kFailed);
  EXPECT_EQ(JudgeTemplate(Template(by_condition))->why, "SnapshotFailed: ENOSPC");
  const json by_error{{"phase", "Failed"},
                      {"error", {{"message", "the deadline of 5m has passed"}}}};
  EXPECT_EQ(JudgeTemplate(Template(by_error))->why, "the deadline of 5m has passed");
  EXPECT_FALSE(JudgeTemplate(json::object()));
}

}  // namespace
}  // namespace dormouse::cli
