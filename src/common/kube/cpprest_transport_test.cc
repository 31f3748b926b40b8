#include "src/common/kube/cpprest_transport.h"

#include <gmock/gmock.h>
#include <stdlib.h>

#include <cstdio>
#include <cstring>

#include "src/common/base/files.h"
#include "tests/fakes/scripted_api_server.h"

namespace dormouse::kube {
namespace {

using namespace std::chrono_literals;
using Then = ScriptedApiServer::Then;
using testing::HasSubstr;

class TransportTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { InitialiseProcess(4); }
  void SetUp() override { Make({}); }
  void Make(ClusterConfig config) {
    config.server = server_.url();
    auto made = MakeTransport(
        config, {.user_agent = "dormouse-test", .clock = &clock_, .metrics = &registry_});
    ASSERT_TRUE(made) << made.error().message();
    transport_ = *made;
  }
  Result<HttpResponse> Get(std::chrono::milliseconds timeout = 20s) {
    return transport_->Request({.target = "/api?a=%2F", .timeout = timeout});
  }
  Result<HttpResponse> Watch(StreamRequest request = {.target = "/w"}) {
    return transport_->Stream(
        request,
        [this](std::string_view bytes) -> Result<> {
          heard_ += bytes;
          return {};
        },
        stop_.get_token());
  }

  FakeClock clock_;
  metrics::Registry registry_;
  ScriptedApiServer server_;
  std::shared_ptr<HttpTransport> transport_;
  std::stop_source stop_;
  std::string heard_;
};

TEST_F(TransportTest, AskedAndAnswered) {
  server_.Push({.status = 201, .body = "{\"a\":1}"});
  const auto answer = transport_->Request({.method = "PATCH",
                                           .target = "/api?a=%2F",
                                           .content_type = "application/apply-patch+yaml",
                                           .body = "{}"});
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->status, 201);
  EXPECT_EQ(answer->body, "{\"a\":1}");
  const auto seen = server_.seen().at(0);
  EXPECT_THAT(seen.head, testing::StartsWith("PATCH /api?a=%2F HTTP/1.1\r\n"));
  EXPECT_THAT(seen.head, HasSubstr("Content-Type:application/apply-patch+yaml"));
  EXPECT_THAT(seen.head, HasSubstr("User-Agent:dormouse-test"));
  EXPECT_EQ(seen.body, "{}");
  EXPECT_THAT(registry_.Text(), HasSubstr("rest_client_requests_total{code=\"201\""));
}

TEST_F(TransportTest, ConnectionsAreUsedAgain) {
  for (int i = 0; i < 5; ++i) {
    server_.Push({.status = i % 2 == 0 ? 200 : 404, .body = "{}"});
    ASSERT_TRUE(Get());
  }
  // Two at most: an answer may be handed over just before its connection is free again.
  EXPECT_LE(server_.seen().back().connection, 2);
}

TEST_F(TransportTest, ConnectionsAreKeptAlive) {
  server_.Push({.body = "{}"});
  ASSERT_TRUE(Get());
  // proc(5): local and remote address, state, queues, and which timer runs; 2 = keep-alive.
  const std::string table = *ReadFile("/proc/self/net/tcp", 4 << 20);
  const std::string port = server_.url().substr(server_.url().rfind(':') + 1);
  char remote[32];
  std::snprintf(remote, sizeof(remote), " 0100007F:%04X 01 ",
                static_cast<unsigned>(std::stoi(port)));
  const std::size_t line = table.find(remote);
  ASSERT_NE(line, std::string::npos);
  EXPECT_EQ(table.substr(line + std::strlen(remote) + 18, 2), "02");
}

TEST_F(TransportTest, AnErrorOfTheServerIsAnAnswerWithItsRetryAfter) {
  server_.Push({.status = 429, .body = "busy", .headers = "Retry-After: 7\r\n"});
  const auto answer = Get();
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->status, 429);
  EXPECT_EQ(answer->retry_after, 7s);
  EXPECT_EQ(answer->body, "busy");
}

TEST_F(TransportTest, ARedirectIsNotFollowed) {
  server_.Push({.status = 302, .headers = "Location: http://127.0.0.1:1/elsewhere\r\n"});
  EXPECT_EQ(Get()->status, 302);
  EXPECT_EQ(server_.seen().size(), 1u);
}

TEST_F(TransportTest, ADeadlineIsAWallClockNotAnIdleTimer) {
  server_.Push({.body = "{", .then = Then::kSilence});
  const auto answer = Get(100ms);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code(), ErrorCode::kDeadline);
}

TEST_F(TransportTest, NobodyThereIsUnavailable) {
  server_.GoDown();
  EXPECT_EQ(Get().error().code(), ErrorCode::kUnavailable);
  server_.ComeBack();
  server_.Push({.body = "{}"});
  EXPECT_TRUE(Get()) << "after a restart, on the same transport";
}

TEST_F(TransportTest, ATruncatedAnswerIsUnavailable) {
  server_.Push({.body = "{\"a\":", .then = Then::kTruncate});
  EXPECT_EQ(Get().error().code(), ErrorCode::kUnavailable);
}

TEST_F(TransportTest, AStreamIsHandedOnAsItComes) {
  server_.Push({.body = "line one\n", .chunked = true});
  const auto answer = Watch();
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(heard_, "line one\n");
}

TEST_F(TransportTest, AStreamCutInAChunkKeepsWhatCameBefore) {
  server_.Push({.body = "line one\n", .chunked = true, .then = Then::kTruncate});
  EXPECT_EQ(Watch().error().code(), ErrorCode::kUnavailable);
  server_.Push({.body = "line two\n", .chunked = true, .then = Then::kReset});
  EXPECT_EQ(Watch().error().code(), ErrorCode::kUnavailable);
}

TEST_F(TransportTest, ARefusedStreamIsAnAnswerAndTheSinkUnused) {
  server_.Push({.status = 410, .body = "{\"reason\":\"Expired\"}"});
  const auto answer = Watch();
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->status, 410);
  EXPECT_EQ(answer->body, "{\"reason\":\"Expired\"}");
  EXPECT_EQ(heard_, "");
}

TEST_F(TransportTest, ASilentConnectionEndsAtItsIdleLimit) {
  server_.Push({.body = "line one\n", .chunked = true, .then = Then::kSilence});
  const auto answer = Watch({.target = "/w", .idle_limit = 100ms});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code(), ErrorCode::kDeadline);
  EXPECT_THAT(answer.error().message(), HasSubstr("silent"));
  EXPECT_EQ(heard_, "line one\n");
}

TEST_F(TransportTest, WhatTheSinkRefusesEndsTheStream) {
  server_.Push({.body = "line one\n", .chunked = true, .then = Then::kSilence});
  const auto answer = transport_->Stream(
      {.target = "/w"},
      [](std::string_view) -> Result<> { return Fail(ErrorCode::kCorrupt, "garbage"); },
      stop_.get_token());
  EXPECT_EQ(answer.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(answer.error().message(), HasSubstr("garbage"));
}

TEST_F(TransportTest, AStopEndsAStreamAtOnce) {
  server_.Push({.body = "line one\n", .chunked = true, .then = Then::kSilence});
  std::jthread stopper([this] {
    server_.WaitForRequests(1);
    stop_.request_stop();
  });
  EXPECT_EQ(Watch().error().code(), ErrorCode::kCancelled);
}

TEST_F(TransportTest, ALargeBodyPassesInBlocks) {
  server_.Push({.body = std::string(8 << 20, 'x'), .chunked = true});
  std::size_t taken = 0;
  std::size_t largest = 0;
  const auto answer = transport_->Stream(
      {.target = "/w"},
      [&](std::string_view bytes) -> Result<> {
        taken += bytes.size();
        largest = std::max(largest, bytes.size());
        return {};
      },
      stop_.get_token());
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(taken, std::size_t{8} << 20);
  EXPECT_LE(largest, std::size_t{128} << 10);
}

class TokenTransportTest : public TransportTest {
 protected:
  void SetUp() override {
    char name[] = "/tmp/dormouse-transport-test-XXXXXX";
    directory_ = ::mkdtemp(name);
    Write("first");
    ClusterConfig config;
    config.token_file = directory_ + "/token";
    Make(config);
  }
  ~TokenTransportTest() override { EXPECT_TRUE(RemoveTree(directory_)); }
  void Write(const std::string& token) {
    EXPECT_TRUE(WriteFileAtomically(directory_ + "/token", token));
  }
  std::string directory_;
};

TEST_F(TokenTransportTest, A401MidRunTakesTheRotatedTokenOnce) {
  server_.Push({.body = "{}"});
  ASSERT_TRUE(Get());
  EXPECT_THAT(server_.seen()[0].head, HasSubstr("Authorization:Bearer first\r\n"));
  Write("second");
  server_.Push({.status = 401, .body = "no"});
  server_.Push({.body = "{\"ok\":1}"});
  const auto answer = Get();
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(answer->body, "{\"ok\":1}");
  EXPECT_THAT(server_.seen()[2].head, HasSubstr("Authorization:Bearer second\r\n"));
  server_.Push({.status = 401, .body = "no"});
  EXPECT_EQ(Get()->status, 401) << "the same token is not tried twice";
  EXPECT_EQ(server_.seen().size(), 4u);
}

TEST(TransportConfigTest, WhatCannotWorkIsSaidAtOnce) {
  EXPECT_EQ(MakeTransport({.server = "nonsense"}).error().code(), ErrorCode::kInvalid);
  EXPECT_EQ(
      MakeTransport({.server = "https://a", .ca = {.file = "/nonexistent/ca.crt"}}).error().code(),
      ErrorCode::kNotFound);
  EXPECT_THAT(MakeTransport({.server = "https://a", .ca = {.data = "no pem"}}).error().message(),
              HasSubstr("holds no certificate"));
}

}  // namespace
}  // namespace dormouse::kube
