#include "node-agent/vmm/event_monitor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "node-agent/vmm/event_test_parts.h"

namespace dormouse::vmm {
namespace {

TEST(EventParserTest, TheStreamOfARealVmmIsRead) {
  EventParser parser;
  const auto events = parser.Feed(
      EventText("vmm", "starting") + EventText("vm", "booting") +
      EventText("virtio-device", "activated", "{\n    \"id\": \"disk0\"\n  }") +
      EventText("vm", "booted") + EventText("vm", "rebooting") + EventText("guest", "panic"));
  ASSERT_EQ(events.size(), 6u);
  EXPECT_EQ(events[0].kind, EventKind::kVmmStarting);
  EXPECT_EQ(events[1].kind, EventKind::kBooting);
  EXPECT_EQ(events[2].kind, EventKind::kOther);
  EXPECT_EQ(events[2].properties.at("id"), "disk0");
  EXPECT_EQ(events[3].kind, EventKind::kBooted);
  EXPECT_EQ(events[3].since_start, std::chrono::nanoseconds(6'626'069'031));
  EXPECT_EQ(events[4].kind, EventKind::kRebooting);
  EXPECT_EQ(events[5].kind, EventKind::kGuestPanic);
  EXPECT_EQ(parser.skipped(), 0u);
}

TEST(EventParserTest, EventsCutAnywhereAreWhole) {
  const std::string stream =
      EventText("vm", "booted", "{\n    \"a\": \"}{\\\"\"\n  }") + EventText("vm", "shutdown");
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    EventParser parser;
    auto events = parser.Feed(stream.substr(0, cut));
    for (Event& event : parser.Feed(stream.substr(cut))) events.push_back(std::move(event));
    ASSERT_EQ(events.size(), 2u) << cut;
    EXPECT_EQ(events[0].properties.at("a"), "}{\"");
    EXPECT_EQ(events[1].kind, EventKind::kShutdown);
  }
}

TEST(EventParserTest, GarbageIsSkippedAndCounted) {
  EventParser parser;
  const auto events =
      parser.Feed("}}x" + std::string(10, '\0') + "{\"source\": 1}\n\n{]}\n\n" +
                  EventText("vm", "paused") + "{ \"torn\n" + EventText("vm", "resumed"));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].kind, EventKind::kPaused);
  EXPECT_EQ(events[1].kind, EventKind::kResumed);
  EXPECT_GT(parser.skipped(), 0u);
}

TEST(EventParserTest, AnObjectWithoutEndCostsNoMemoryAndHidesNothing) {
  EventParser parser;
  EXPECT_TRUE(parser.Feed("{\n  \"source\": [").empty());
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(parser.Feed(std::string(4096, '1')).empty());
  const auto events = parser.Feed("\n" + EventText("vm", "booted"));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind, EventKind::kBooted);
}

TEST(EventParserTest, WhatEndsTheGuestIsNamed) {
  for (const EventKind kind :
       {EventKind::kShutdown, EventKind::kRebooting, EventKind::kGuestPanic}) {
    EXPECT_TRUE(EndsTheVm(kind)) << EventKindName(kind);
  }
  for (const EventKind kind : {EventKind::kBooted, EventKind::kPaused, EventKind::kVmmShutdown}) {
    EXPECT_FALSE(EndsTheVm(kind)) << EventKindName(kind);
  }
}

class EventTailTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/var/tmp/dormouse-events-XXXXXX";
    writer_.Reset(::mkstemp(name));
    path_ = name;
  }
  void TearDown() override { ::unlink(path_.c_str()); }
  void Write(const std::string& text) {
    ASSERT_EQ(::write(writer_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  std::string path_;
  UniqueFd writer_;
};

TEST_F(EventTailTest, EachEventIsToldOnceAndAgainToWhoComesLater) {
  auto tail = EventTail::Open(path_, ::geteuid());
  ASSERT_TRUE(tail);
  EXPECT_TRUE(tail->Read()->empty());
  Write(EventText("vm", "booting"));
  EXPECT_EQ(tail->Read()->size(), 1u);
  EXPECT_TRUE(tail->Read()->empty());
  Write(EventText("vm", "booted"));
  EXPECT_EQ(tail->Read()->size(), 1u);
  EXPECT_EQ(EventTail::Open(path_, ::geteuid())->Read()->size(), 2u);
}

TEST_F(EventTailTest, AMissingFileIsNotFoundAndIsNotMade) {
  EXPECT_EQ(EventTail::Open("/nonexistent/events", ::geteuid()).error().code(),
            ErrorCode::kNotFound);
}

TEST_F(EventTailTest, AGuestThatMakesEventsForEverTakesNoDisk) {
  auto tail = EventTail::Open(path_, ::geteuid());
  ASSERT_TRUE(tail);
  std::string reset;
  for (int i = 0; i < 100; ++i)
    reset += EventText("virtio-device", "reset", "{\n    \"id\": \"net0\"\n  }");
  size_t written = 0;
  size_t seen = 0;
  while (written < (size_t{4} << 20)) {
    Write(reset);
    written += reset.size();
    seen += tail->Read()->size();
  }
  EXPECT_EQ(seen, written / reset.size() * 100);
  struct stat info {};
  ASSERT_EQ(::fstat(writer_.get(), &info), 0);
  EXPECT_LT(info.st_blocks * 512, 512 * 1024);

  // A restarted agent passes the hole and reads on.
  auto again = EventTail::Open(path_, ::geteuid());
  Write(EventText("vm", "shutdown"));
  std::vector<Event> events = *again->Read();
  for (auto more = *again->Read(); !more.empty(); more = *again->Read()) {
    events.insert(events.end(), more.begin(), more.end());
  }
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.back().kind, EventKind::kShutdown);
}

}  // namespace
}  // namespace dormouse::vmm
