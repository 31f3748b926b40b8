#include "node-agent/serve/ctl_json.h"

#include <gtest/gtest.h>

#include "src/common/base/time.h"

namespace dormouse {
namespace {

SandboxSummary Web() {
  SandboxSummary web;
  web.uid = "0b0e6b1c-0000-4000-8000-000000000001";
  web.short_id = "1f2e3d4c5b6a";
  web.ns = "default";
  web.name = "web";
  web.phase = "Running";
  web.ready_reason = "Ready";
  web.image = "debian-12";
  web.pid = 4711;
  web.vcpus = 2;
  web.memory_bytes = 512 << 20;
  web.disk_allocated_bytes = 1536LL << 20;
  web.host_address = "10.201.0.2";
  web.started_at = ParseTime("2026-11-21T08:00:00Z");
  web.running = true;
  return web;
}

const WallTime kNow = *ParseTime("2026-11-21T09:05:00Z");

TEST(CtlJsonTest, TheTableIsForPeople) {
  SandboxSummary failed;
  failed.ns = "default";
  failed.name = "a";
  failed.phase = "Failed";
  failed.ready_reason = "VMMCrashed";
  failed.vcpus = 1;
  const auto table = SandboxTable(SummariesToJson({Web(), failed}), false, kNow);
  ASSERT_TRUE(table);
  EXPECT_EQ(
      *table,
      "NAMESPACE   NAME   PHASE     REASON       CPU   MEMORY   DISK    PID    RESTARTS   UP\n"
      "default     a      Failed    VMMCrashed   1     0        0       -      0          -\n"
      "default     web    Running   Ready        2     512Mi    1.5Gi   4711   0          65m\n");
  EXPECT_NE(SandboxTable(SummariesToJson({Web()}), true, kNow)
                ->find("10.201.0.2   debian-12   1f2e3d4c5b6a"),
            std::string::npos);
  EXPECT_EQ(*SandboxTable("[]", false, kNow), "no sandboxes on this node\n");
}

TEST(CtlJsonTest, LeaksAreCounted) {
  const auto some = MakeLeakTable(
      LeaksToJson({{"dm", "dormouse-1f2e-root", "no record"}, {"netns", "dm-9", ""}}));
  ASSERT_TRUE(some);
  EXPECT_EQ(some->count, 2U);
  EXPECT_EQ(some->text,
            "KIND    NAME                 DETAIL\n"
            "dm      dormouse-1f2e-root   no record\n"
            "netns   dm-9                 -\n");
  EXPECT_EQ(MakeLeakTable(LeaksToJson({}))->count, 0U);
}

TEST(CtlJsonTest, WhatAGuestSaysCannotSteerATerminal) {
  SandboxSummary evil = Web();
  evil.phase = "\x1b[2J\nx\x80";
  const std::string table = *SandboxTable(SummariesToJson({evil}), false, kNow);
  EXPECT_EQ(table.find('\x1b'), std::string::npos);
  EXPECT_EQ(Outline(R"({"console":"a\u001b[31mb\nc\n"})").value(),
            "console:\n  | a?[31mb\n  | c\n");
}

TEST(CtlJsonTest, WhatIsNoUtf8IsShownAllTheSame) {
  SandboxSummary evil = Web();
  evil.ready_reason = "\xff\xfe";
  EXPECT_TRUE(SandboxTable(SummariesToJson({evil}), false, kNow));
  EXPECT_TRUE(MakeLeakTable(LeaksToJson({{"vmdir", "\xff", "\xc3"}})));
}

TEST(CtlJsonTest, AnOutlineShowsNestedThings) {
  EXPECT_EQ(
      Outline(
          R"({"record":{"uid":"x","slot":3},"plan":"save-intent -> Proceed","api":null,"list":[1,"b",{}]})")
          .value(),
      "record:\n  uid: x\n  slot: 3\nplan: save-intent -> Proceed\napi: null\nlist:\n  - 1\n  - "
      "b\n  - {}\n");
  EXPECT_FALSE(Outline("{"));
}

TEST(CtlJsonTest, AmountsAndAgesAreShort) {
  EXPECT_EQ(HumanBytes(0), "0");
  EXPECT_EQ(HumanBytes(1536), "1.5Ki");
  EXPECT_EQ(HumanBytes(512LL << 20), "512Mi");
  EXPECT_EQ(HumanBytes(20LL << 40), "20Ti");
  EXPECT_EQ(HumanAge(kNow, kNow), "0s");
  EXPECT_EQ(HumanAge(kNow - std::chrono::minutes(3), kNow), "3m");
  EXPECT_EQ(HumanAge(kNow - std::chrono::hours(47), kNow), "47h");
  EXPECT_EQ(HumanAge(kNow - std::chrono::hours(72), kNow), "3d");
}

}  // namespace
}  // namespace dormouse
