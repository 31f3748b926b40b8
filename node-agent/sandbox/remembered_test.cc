#include "node-agent/sandbox/remembered.h"

#include <gtest/gtest.h>

namespace dormouse {
namespace {

using namespace std::chrono_literals;

constexpr MonotonicTime kMoment{1h};

TEST(LastLookTest, IsUsedWhileItIsYoungAndNothingHasHappened) {
  LastLook look;
  EXPECT_FALSE(look.Within(60s, kMoment)) << "nothing was seen yet";
  look.Note({.vmm = VmmState::kRunning, .stale_files = true}, kMoment);
  look.NotePruned();
  ASSERT_TRUE(look.Within(60s, kMoment + 59s));
  EXPECT_FALSE(look.Within(60s, kMoment + 59s)->stale_files);
  EXPECT_FALSE(look.Within(60s, kMoment + 60s));
  look.Forget();
  EXPECT_FALSE(look.Within(60s, kMoment));
}

TEST(VmmRunTest, AGuestHasItsDeadlineFromTheLaunchOrFromWhenItsVmmWasFound) {
  VmmRun run;
  EXPECT_FALSE(run.Since(kMoment));
  run.Found(kMoment);
  run.Found(kMoment + 5s);
  EXPECT_EQ(run.Since(kMoment + 7s), 7s) << "to be found again gives it no more time";
  run.Launched(kMoment + 10s);
  EXPECT_EQ(run.Since(kMoment + 11s), 1s);
  run.Ended();
  EXPECT_FALSE(run.Since(kMoment));
}

TEST(VmmRunTest, WhatAGuestWasToldEndsWithItsVmm) {
  VmmRun run;
  run.Booted(/*disk_is_new=*/true);
  run.Thawed();
  run.ThawFailed("no");
  EXPECT_TRUE(run.IsFresh());
  run.Launched(kMoment);
  EXPECT_FALSE(run.IsFresh());
  EXPECT_FALSE(run.thawed());
  EXPECT_FALSE(run.thaw_failed());
}

TEST(VmmRunTest, OneThatIsSilentForTooLongOrDoesNotPauseHangsUntilTheNextIsLaunched) {
  VmmRun run;
  run.Looked(/*silent=*/true, kMoment);
  run.Looked(/*silent=*/true, kMoment + 9s);
  EXPECT_FALSE(run.WhyItHangs(10s, kMoment + 9s));
  EXPECT_EQ(run.WhyItHangs(10s, kMoment + 10s), "the VMM has not answered for 10 s, and was ended");
  run.Looked(/*silent=*/false, kMoment + 11s);
  run.Looked(/*silent=*/true, kMoment + 12s);
  EXPECT_FALSE(run.WhyItHangs(10s, kMoment + 13s)) << "it has answered in between";
  run.PauseHung("vm.pause: no answer");
  EXPECT_EQ(run.WhyItHangs(10s, kMoment + 13s), "vm.pause: no answer");
  run.Launched(kMoment + 14s);
  EXPECT_FALSE(run.WhyItHangs(10s, kMoment + 60s));
}

TEST(FailedSuspendsTest, EachHoldsTheNextBackForLongerUpToFiveMinutes) {
  FailedSuspends failed;
  EXPECT_LE(failed.Hold(kMoment), 0s);
  for (const auto expected : {15s, 30s, 60s, 120s, 240s, 300s, 300s}) {
    failed.Note({"SnapshotFailed", "no room"}, 15s, kMoment);
    EXPECT_EQ(failed.Hold(kMoment), expected);
  }
  ASSERT_TRUE(failed.problem());
  failed.Forget();
  EXPECT_LE(failed.Hold(kMoment), 0s);
  EXPECT_FALSE(failed.problem());
  failed.Note({"SnapshotFailed", "no room"}, 15s, kMoment);
  EXPECT_EQ(failed.Hold(kMoment), 15s) << "in a row";
}

TEST(FailedWakeTest, SaysNothingOfAnotherGeneration) {
  FailedWake failed;
  failed.Note(3, "damaged");
  EXPECT_EQ(failed.Of(3), "damaged");
  EXPECT_FALSE(failed.Of(4));
  EXPECT_FALSE(failed.Of(std::nullopt)) << "it does not sleep";
  failed.Forget();
  EXPECT_FALSE(failed.Of(3));
}

TEST(WakeRoomTest, WhoHasWaitedLongerComesFirst) {
  WakeRoom taken, old, young, none;
  taken.Take(512);
  old.Wait(kMoment);
  young.Wait(kMoment + 1s);
  old.Wait(kMoment + 2s);
  EXPECT_TRUE(taken.ComesBefore(old));
  EXPECT_TRUE(old.ComesBefore(young)) << "to ask again is not to begin anew";
  EXPECT_FALSE(young.ComesBefore(old));
  EXPECT_TRUE(young.ComesBefore(none));
  EXPECT_FALSE(none.ComesBefore(none));
  taken.Leave();
  EXPECT_FALSE(taken.ComesBefore(young));
  EXPECT_EQ(taken.start_bytes(), 0);
}

}  // namespace
}  // namespace dormouse
