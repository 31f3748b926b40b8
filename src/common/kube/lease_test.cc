#include "src/common/kube/lease.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/fakes/fake_http_transport.h"

namespace dormouse::kube {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

/// An API server with one Lease, which refuses a PUT on an old version.
class LeaseServer {
 public:
  std::shared_ptr<FakeHttpTransport> Transport(FakeClock* clock) {
    auto transport = std::make_shared<FakeHttpTransport>(clock);
    transport->Serve([this](const HttpRequest& request) { return Answer(request); });
    return transport;
  }
  bool reachable = true;
  json lease;
  int writes = 0;

 private:
  FakeHttpTransport::Answer Answer(const HttpRequest& request) {
    if (!reachable) return {.error = Error(ErrorCode::kUnavailable, "no route to host")};
    if (request.method == "GET") {
      if (lease.is_null()) return {.status = 404, .body = R"({"reason":"NotFound"})"};
      return {.body = lease.dump()};
    }
    if (request.method == "PUT" && lease.is_null()) {
      return {.status = 404, .body = R"({"reason":"NotFound"})"};
    }
    json next = json::parse(request.body);
    if (request.method == "POST" && !lease.is_null()) {
      return {.status = 409, .body = R"({"reason":"AlreadyExists"})"};
    }
    if (request.method == "PUT" &&
        next["metadata"].value("resourceVersion", "") != lease["metadata"]["resourceVersion"]) {
      return {.status = 409, .body = R"({"reason":"Conflict"})"};
    }
    next["metadata"]["uid"] = "lease-uid";
    next["metadata"]["resourceVersion"] = std::to_string(++writes);
    lease = next;
    return {.body = lease.dump()};
  }
};

class LeaderElectionTest : public testing::Test {
 protected:
  LeaderElector Elector(const std::string& identity) {
    return LeaderElector(server_.Transport(&clock_), {.lease = {"dormouse-system", "controller"},
                                                      .identity = identity,
                                                      .seed = 1,
                                                      .clock = &clock_,
                                                      .metrics = &registry_});
  }
  FakeClock clock_;
  metrics::Registry registry_;
  LeaseServer server_;
};

TEST_F(LeaderElectionTest, TheFirstLeadsTheOthersWait) {
  auto a = Elector("a");
  auto b = Elector("b");
  EXPECT_EQ(a.Tick(), 2s);
  EXPECT_TRUE(a.IsLeader());
  const auto next = b.Tick();
  EXPECT_FALSE(b.IsLeader());
  EXPECT_EQ(b.Leader(), "a");
  EXPECT_GE(next, 2s);
  EXPECT_LE(next, 4400ms);
}

TEST_F(LeaderElectionTest, AnotherTakesOverOnlyWhenTheRecordStoodStillForItsWholeLength) {
  auto a = Elector("a");
  auto b = Elector("b");
  (void)a.Tick();
  (void)b.Tick();
  for (int i = 0; i < 30; ++i) {
    clock_.Advance(2s);
    (void)a.Tick();
    (void)b.Tick();
    EXPECT_FALSE(b.IsLeader()) << "a renews";
  }
  clock_.Advance(14s);
  (void)b.Tick();
  EXPECT_FALSE(b.IsLeader());
  clock_.Advance(1s);
  (void)b.Tick();
  EXPECT_TRUE(b.IsLeader());
  EXPECT_EQ(server_.lease["spec"]["leaseTransitions"], 1);
}

TEST_F(LeaderElectionTest, ANewcomerDoesNotTrustTheOldRecordsClock) {
  auto a = Elector("a");
  (void)a.Tick();
  clock_.Advance(1h);
  auto b = Elector("b");
  (void)b.Tick();
  EXPECT_FALSE(b.IsLeader()) << "b has seen the record for no time at all";
}

TEST_F(LeaderElectionTest, ALeaderThatCannotRenewInTimeHasLost) {
  auto a = Elector("a");
  (void)a.Tick();
  server_.reachable = false;
  clock_.Advance(9s);
  (void)a.Tick();
  EXPECT_TRUE(a.IsLeader());
  EXPECT_FALSE(a.Lost());
  clock_.Advance(1s);
  EXPECT_FALSE(a.IsLeader()) << "before any call has returned";
  (void)a.Tick();
  EXPECT_TRUE(a.Lost());
}

TEST_F(LeaderElectionTest, ALeaderWhoseLeaseWasTakenHasLostAtOnce) {
  auto a = Elector("a");
  (void)a.Tick();
  server_.lease["spec"]["holderIdentity"] = "b";
  server_.lease["metadata"]["resourceVersion"] = "77";
  clock_.Advance(2s);
  (void)a.Tick();
  EXPECT_TRUE(a.Lost());
  EXPECT_FALSE(a.IsLeader());
}

TEST_F(LeaderElectionTest, AReleasedLeaseIsTakenAtOnce) {
  auto a = Elector("a");
  auto b = Elector("b");
  (void)a.Tick();
  (void)b.Tick();
  a.Release();
  EXPECT_FALSE(a.IsLeader());
  (void)b.Tick();
  EXPECT_TRUE(b.IsLeader());
}

TEST_F(LeaderElectionTest, RunStartsTheWorkOnceAndFailsWhenTheLeaseIsLost) {
  auto a = Elector("a");
  FakeWaiter waiter(clock_);
  int started = 0;
  std::stop_source stop;
  const auto result = a.Run(
      stop.get_token(),
      [&] {
        ++started;
        server_.reachable = false;
      },
      waiter);
  ASSERT_FALSE(result);
  EXPECT_EQ(started, 1);
  EXPECT_GE(waiter.Waits().size(), 5u);
}

TEST(HeartbeatTest, CreatesThenRenewsWithoutReading) {
  FakeClock clock;
  LeaseServer server;
  auto transport = server.Transport(&clock);
  Heartbeat heartbeat(transport,
                      {.lease = {"dormouse-nodes", "n1"},
                       .holder = "n1",
                       .owner_json = R"({"apiVersion":"v1","kind":"Node","name":"n1","uid":"u"})",
                       .clock = &clock});
  ASSERT_TRUE(heartbeat.Beat());
  EXPECT_EQ(server.lease["spec"]["leaseDurationSeconds"], 40);
  EXPECT_EQ(server.lease["metadata"]["ownerReferences"][0]["name"], "n1");
  const auto first = server.lease["spec"]["renewTime"];
  clock.Advance(10s);
  ASSERT_TRUE(heartbeat.Beat());
  EXPECT_NE(server.lease["spec"]["renewTime"], first);
  EXPECT_EQ(transport->Seen().size(), 3u) << "get, create, update";
  EXPECT_EQ(heartbeat.last_attempt(), clock.Now());
}

TEST(HeartbeatTest, ALeaseSomebodyChangedOrDeletedIsTakenUpAgain) {
  FakeClock clock;
  LeaseServer server;
  Heartbeat heartbeat(server.Transport(&clock),
                      {.lease = {"ns", "n1"}, .holder = "n1", .clock = &clock});
  ASSERT_TRUE(heartbeat.Beat());
  server.lease["metadata"]["resourceVersion"] = "99";
  EXPECT_FALSE(heartbeat.Beat());
  EXPECT_TRUE(heartbeat.Beat());
  server.lease = nullptr;
  EXPECT_FALSE(heartbeat.Beat());
  EXPECT_TRUE(heartbeat.Beat());
}

TEST(HeartbeatTest, ABeatThatComesLateIsABeginning) {
  FakeClock clock;
  LeaseServer server;
  Heartbeat heartbeat(server.Transport(&clock),
                      {.lease = {"ns", "n1"}, .holder = "n1", .clock = &clock});
  EXPECT_EQ(heartbeat.beginnings(), 0U);
  ASSERT_TRUE(heartbeat.Beat());
  EXPECT_EQ(heartbeat.beginnings(), 1U);
  clock.Advance(19s);
  ASSERT_TRUE(heartbeat.Beat());
  EXPECT_EQ(heartbeat.beginnings(), 1U);
  server.reachable = false;
  clock.Advance(10s);
  EXPECT_FALSE(heartbeat.Beat());
  server.reachable = true;
  clock.Advance(10s);
  (void)heartbeat.Beat();
  EXPECT_EQ(heartbeat.beginnings(), 2U);
}

TEST(HeartbeatTest, OneThatFailsIsAnAttempt) {
  FakeClock clock;
  LeaseServer server;
  server.reachable = false;
  Heartbeat heartbeat(server.Transport(&clock),
                      {.lease = {"ns", "n1"}, .holder = "n1", .clock = &clock});
  EXPECT_EQ(heartbeat.last_attempt(), std::nullopt);
  EXPECT_FALSE(heartbeat.Beat());
  EXPECT_EQ(heartbeat.last_attempt(), clock.Now());
}

TEST(LeaseObserverTest, ANodeIsDeadWhenItsLeaseStoodStillForItsLength) {
  FakeClock clock;
  LeaseObserver observer(clock);
  EXPECT_EQ(observer.Alive(), std::nullopt);
  LeaseRecord lease{.holder = "n1", .duration = 40s, .renewed = clock.WallNow() - 24h};
  observer.Observe(lease);
  EXPECT_EQ(observer.Alive(), true) << "its clock may be a day behind";
  clock.Advance(39s);
  observer.Observe(lease);
  EXPECT_EQ(observer.Alive(), true);
  clock.Advance(1s);
  EXPECT_EQ(observer.Alive(), false);
  lease.renewed = *lease.renewed + 10s;
  observer.Observe(lease);
  EXPECT_EQ(observer.Alive(), true);
}

TEST(LeaseTest, SurvivesItsOwnFormat) {
  LeaseRecord lease{.ref = {{"ns", "l"}, "u", ResourceVersion("3")},
                    .holder = "h",
                    .duration = 15s,
                    .acquired = WallTime(1767225600s),
                    .renewed = WallTime(1767225601500ms),
                    .transitions = 4};
  const auto again = ParseLease(FormatLease(lease));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->holder, "h");
  EXPECT_EQ(again->renewed, lease.renewed);
  EXPECT_EQ(again->transitions, 4);
  EXPECT_FALSE(ParseLease("[]"));
}

}  // namespace
}  // namespace dormouse::kube
