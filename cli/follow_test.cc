#include "cli/follow.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/fakes/fake_http_transport.h"

namespace dormouse::cli {
namespace {

using namespace std::chrono_literals;
using kube::FakeHttpTransport;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

json Object(const char* version, const char* uid = "u1") {
  return {{"metadata",
           {{"namespace", "ns"}, {"name", "s1"}, {"uid", uid}, {"resourceVersion", version}}}};
}
std::string Event(const char* type, const json& object) {
  return json{{"type", type}, {"object", object}}.dump() + "\n";
}

class FollowTest : public testing::Test {
 protected:
  /// Follows until `last` is seen.
  Result<> Run(const std::string& last) {
    const Followed what{{"dormouse.dev", "v1alpha1", "sandboxes", true}, {"ns", "s1"}, "u1"};
    return Follow(
        transport_, what,
        [&](const json& object) {
          seen_.push_back(object["metadata"]["resourceVersion"]);
          return seen_.back() != last;
        },
        stop_.get_token(), clock_, waiter_);
  }

  FakeClock clock_;
  kube::FakeWaiter waiter_{clock_};
  FakeHttpTransport transport_{&clock_};
  std::stop_source stop_;
  std::vector<std::string> seen_;
};

TEST_F(FollowTest, ChangesAreSeenAsTheyComeFromTheVersionThatWasRead) {
  transport_.Push({.body = Object("7").dump()});
  transport_.Push({.body = Event("MODIFIED", Object("8")) + Event("BOOKMARK", Object("9")) +
                           Event("MODIFIED", Object("10"))});
  EXPECT_TRUE(Run("10"));
  EXPECT_THAT(seen_, ElementsAre("7", "8", "10"));
  ASSERT_EQ(transport_.Seen().size(), 2U);
  EXPECT_EQ(transport_.Seen()[0].target, "/apis/dormouse.dev/v1alpha1/namespaces/ns/sandboxes/s1");
  EXPECT_THAT(transport_.LastTarget(), HasSubstr("/namespaces/ns/sandboxes?watch=true&"));
  EXPECT_THAT(transport_.LastTarget(),
              HasSubstr("&fieldSelector=metadata.name%3Ds1&resourceVersion=7"));
}

TEST_F(FollowTest, WhatIsSoAlreadyNeedsNoWatch) {
  transport_.Push({.body = Object("7").dump()});
  EXPECT_TRUE(Run("7"));
  EXPECT_EQ(transport_.Seen().size(), 1U);
}

TEST_F(FollowTest, AWatchThatEndsBreaksOrExpiresIsFollowedByARead) {
  transport_.Push({.body = Object("7").dump()});
  transport_.Push({.body = "", .takes = 300s});
  transport_.Push({.body = Object("8").dump()});
  transport_.Push({.body = "", .error = Error(ErrorCode::kUnavailable, "reset")});
  transport_.Push({.body = "", .error = Error(ErrorCode::kUnavailable, "refused")});
  transport_.Push({.body = Object("9").dump()});
  transport_.Push({.body = Event("ERROR", {{"kind", "Status"}, {"code", 410}})});
  transport_.Push({.body = Object("10").dump()});
  EXPECT_TRUE(Run("10"));
  EXPECT_THAT(seen_, ElementsAre("7", "8", "9", "10"));
  EXPECT_EQ(waiter_.Waits().size(), 3U) << "not after the watch that had worked";
}

TEST_F(FollowTest, AnObjectThatGoesEndsItAlsoWhenAnotherOfItsNameComes) {
  transport_.Push({.body = Object("7").dump()});
  transport_.Push({.body = Event("DELETED", Object("8"))});
  transport_.Push({.status = 404, .body = R"({"kind":"Status","message":"not found"})"});
  EXPECT_EQ(Run("never").error().code(), ErrorCode::kNotFound);
  transport_.Push({.body = Object("9", "u2").dump()});
  const auto successor = Run("9");
  ASSERT_FALSE(successor);
  EXPECT_THAT(successor.error().message(), HasSubstr("another of the same name"));
  EXPECT_THAT(seen_, ElementsAre("7"));
}

TEST_F(FollowTest, WhoMayNotWatchIsToldSo) {
  transport_.Push({.body = Object("7").dump()});
  transport_.Push({.status = 403, .body = R"({"kind":"Status","message":"may not watch"})"});
  const auto refused = Run("never");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kPermission);
  EXPECT_THAT(refused.error().message(), HasSubstr("watch sandboxes ns/s1: 403: may not watch"));
}

TEST_F(FollowTest, ItEndsWhenItIsToldTo) {
  transport_.Serve([this](const kube::HttpRequest&) {
    if (transport_.Seen().size() == 20) stop_.request_stop();
    return FakeHttpTransport::Answer{.status = 503};
  });
  EXPECT_EQ(Run("never").error().code(), ErrorCode::kCancelled);
}

}  // namespace
}  // namespace dormouse::cli
