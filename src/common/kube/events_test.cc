#include "src/common/kube/events.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/fakes/fake_http_transport.h"

namespace dormouse::kube {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

class EventsTest : public testing::Test {
 protected:
  EventsTest() {
    transport_->Serve(
        [](const HttpRequest&) -> FakeHttpTransport::Answer { return {.body = "{}"}; });
  }
  void Crashed(const std::string& note = "exit status 1") {
    recorder_.Record(web_, EventType::kWarning, "VMMCrashed", "Restart", note);
  }
  json Body(size_t index) { return json::parse(transport_->Seen().at(index).body); }

  FakeClock clock_;
  metrics::Registry registry_;
  std::shared_ptr<FakeHttpTransport> transport_ = std::make_shared<FakeHttpTransport>();
  EventSubject web_{"dormouse.dev/v1alpha1", "Sandbox", "ns", "web", "u1"};
  EventRecorder recorder_{transport_,
                          {.controller = "dormouse.dev/agent",
                           .instance = "n1",
                           .labels = {{"example.com/a", "b"}},
                           .queue_limit = 10,
                           .clock = &clock_,
                           .metrics = &registry_}};
};

TEST_F(EventsTest, AnEventHasAllThatTheApiDemands) {
  Crashed();
  recorder_.Flush();
  ASSERT_EQ(transport_->Seen().size(), 1u);
  EXPECT_THAT(transport_->Seen()[0].target,
              testing::StartsWith("/apis/events.k8s.io/v1/namespaces/ns/events?"));
  const json event = Body(0);
  EXPECT_EQ(event["type"], "Warning");
  EXPECT_EQ(event["reason"], "VMMCrashed");
  EXPECT_EQ(event["action"], "Restart");
  EXPECT_EQ(event["note"], "exit status 1");
  EXPECT_EQ(event["regarding"]["uid"], "u1");
  EXPECT_EQ(event["reportingController"], "dormouse.dev/agent");
  EXPECT_EQ(event["reportingInstance"], "n1");
  EXPECT_EQ(event["metadata"]["labels"], json({{"example.com/a", "b"}}));
  EXPECT_THAT(event["eventTime"].get<std::string>(), testing::EndsWith("Z"));
}

TEST_F(EventsTest, RepeatsBecomeOneSeries) {
  for (int i = 0; i < 5; ++i) {
    Crashed();
    recorder_.Flush();
    clock_.Advance(1s);
  }
  ASSERT_EQ(transport_->Seen().size(), 2u) << "one Event, one series begun";
  EXPECT_EQ(transport_->Seen()[1].method, "PATCH");
  EXPECT_EQ(Body(1)["series"]["count"], 2);
  clock_.Advance(6min);
  recorder_.Flush();
  ASSERT_EQ(transport_->Seen().size(), 3u);
  EXPECT_EQ(Body(2)["series"]["count"], 5) << "told at its end";
  Crashed();
  recorder_.Flush();
  EXPECT_EQ(transport_->Seen().back().method, "POST") << "a new series is a new Event";
}

TEST_F(EventsTest, DifferentNotesAreDifferentEvents) {
  Crashed("a");
  Crashed("b");
  recorder_.Flush();
  EXPECT_EQ(transport_->Seen().size(), 2u);
  EXPECT_NE(Body(0)["metadata"]["name"], Body(1)["metadata"]["name"]);
}

TEST_F(EventsTest, TooManyAreDroppedAndCounted) {
  for (int i = 0; i < 15; ++i) Crashed(std::to_string(i));
  EXPECT_EQ(registry_
                .MakeCounter("dormouse_events_dropped_total",
                             "Events that were dropped as too many waited.")
                .Value(),
            5);
  recorder_.Flush();
  EXPECT_EQ(transport_->Seen().size(), 10u);
}

TEST_F(EventsTest, ALongNoteIsCutBetweenCharacters) {
  std::string note;
  while (note.size() < 2000) note += "ä";
  Crashed("x" + note);
  recorder_.Flush();
  EXPECT_EQ(Body(0)["note"].get<std::string>().size(), 1023u);
}

TEST_F(EventsTest, ClusterScopedObjectsHaveTheirEventsInDefault) {
  recorder_.Record({"dormouse.dev/v1alpha1", "SandboxNode", "", "n1", "u"}, EventType::kNormal,
                   "Ready", "Report", "");
  recorder_.Flush();
  EXPECT_EQ(Body(0)["metadata"]["namespace"], "default");
}

TEST_F(EventsTest, AThreadWritesThem) {
  std::mutex mutex;
  std::condition_variable seen;
  bool written = false;
  transport_->Serve([&](const HttpRequest&) -> FakeHttpTransport::Answer {
    std::lock_guard lock(mutex);
    written = true;
    seen.notify_all();
    return {.body = "{}"};
  });
  recorder_.Start();
  Crashed();
  std::unique_lock lock(mutex);
  EXPECT_TRUE(seen.wait_for(lock, 20s, [&] { return written; }));
}

}  // namespace
}  // namespace dormouse::kube
