#include "src/common/http/unix_client.h"

#include <gmock/gmock.h>
#include <sys/socket.h>

#include <thread>

#include "src/common/base/files.h"

namespace dormouse::http {
namespace {

using namespace std::chrono_literals;

/// The other end of a client's socket, driven by the test.
class Peer {
 public:
  Peer() {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    mine = UniqueFd(pair[0]);
    theirs = UniqueFd(pair[1]);
  }
  UnixClient Client(ResponseLimits limits = {}) {
    return *UnixClient::Adopt(std::move(theirs), limits);
  }
  void Say(std::string_view bytes) { EXPECT_TRUE(WriteAll(mine.get(), bytes)); }
  std::string Heard() {
    std::string heard(64 * 1024, '\0');
    const ssize_t got = ::recv(mine.get(), heard.data(), heard.size(), 0);
    heard.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return heard;
  }
  UniqueFd mine, theirs;
};

TEST(UnixClientTest, TakesAStatusLineWithoutReasonAndAnAnswerWithoutLength) {
  Peer peer;
  auto client = peer.Client();
  peer.Say("HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n");
  auto response = client.Request("PUT", "/api/v1/vm.boot", "", 1s);
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->status, 204);
  EXPECT_EQ(response->body, "");
  EXPECT_TRUE(client.connected());
}

TEST(UnixClientTest, SendsNoBodyAndNoLengthWithoutOne) {
  Peer peer;
  auto client = peer.Client();
  peer.Say("HTTP/1.1 204 \r\n\r\n");
  ASSERT_TRUE(client.Request("PUT", "/api/v1/vm.boot", "", 1s));
  const std::string heard = peer.Heard();
  EXPECT_THAT(heard, testing::StartsWith("PUT /api/v1/vm.boot HTTP/1.1\r\n"));
  EXPECT_THAT(heard, testing::EndsWith("\r\n\r\n"));
  EXPECT_THAT(heard, testing::Not(testing::HasSubstr("Content-")));
}

TEST(UnixClientTest, KeepsTheConnectionForTheNextRequest) {
  Peer peer;
  auto client = peer.Client();
  peer.Say("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_EQ(client.Request("GET", "/a", "", 1s)->body, "{}");
  peer.Say("HTTP/1.1 500 \r\nContent-Length: 9\r\n\r\n[\"wrong\"]");
  const auto second = client.Request("PUT", "/b", "{\"x\":1}", 1s);
  EXPECT_EQ(second->status, 500);
  EXPECT_EQ(second->body, "[\"wrong\"]");
  EXPECT_THAT(peer.Heard(), testing::HasSubstr("Content-Length: 7\r\n\r\n{\"x\":1}"));
}

TEST(UnixClientTest, SkipsContinue) {
  Peer peer;
  auto client = peer.Client();
  peer.Say("HTTP/1.1 100 \r\n\r\nHTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx");
  const auto response = client.Request("PUT", "/a", "body", 1s);
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->body, "x");
}

TEST(UnixClientTest, AnswersInPiecesAreOneAnswer) {
  Peer peer;
  auto client = peer.Client();
  std::jthread slow([&] {
    for (char c : std::string_view("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                   "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")) {
      peer.Say({&c, 1});
    }
  });
  const auto response = client.Request("GET", "/", "", 5s);
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->body, "abcde");
}

TEST(UnixClientTest, ASilentPeerCostsTheDeadlineAndNoMore) {
  Peer peer;
  auto client = peer.Client();
  const auto response = client.Request("GET", "/", "", 20ms);
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), ErrorCode::kDeadline);
  EXPECT_FALSE(client.connected());
  EXPECT_EQ(client.Request("GET", "/", "", 20ms).error().code(), ErrorCode::kUnavailable);
}

TEST(UnixClientTest, ABodyBeyondTheLimitIsRefused) {
  Peer peer;
  auto client = peer.Client({.head_bytes = 1024, .body_bytes = 10});
  peer.Say("HTTP/1.1 200 \r\nContent-Length: 11\r\n\r\n");
  EXPECT_EQ(client.Request("GET", "/", "", 1s).error().code(), ErrorCode::kCorrupt);
}

TEST(UnixClientTest, EndlessHeadersAreRefused) {
  Peer peer;
  auto client = peer.Client({.head_bytes = 1024, .body_bytes = 10});
  peer.Say("HTTP/1.1 200 \r\nX: " + std::string(8000, 'a'));
  EXPECT_EQ(client.Request("GET", "/", "", 1s).error().code(), ErrorCode::kCorrupt);
}

TEST(UnixClientTest, GarbageIsRefused) {
  Peer peer;
  auto client = peer.Client();
  peer.Say("SSH-2.0-OpenSSH_9.2p1\r\n");
  EXPECT_EQ(client.Request("GET", "/", "", 1s).error().code(), ErrorCode::kCorrupt);
}

TEST(UnixClientTest, ADeadPeerIsUnavailable) {
  Peer peer;
  auto client = peer.Client();
  peer.mine.Reset();
  EXPECT_EQ(client.Request("GET", "/", "", 1s).error().code(), ErrorCode::kUnavailable);
}

TEST(UnixClientTest, ATruncatedBodyIsUnavailable) {
  Peer peer;
  auto client = peer.Client();
  peer.Say("HTTP/1.1 200 \r\nContent-Length: 100\r\n\r\nabc");
  peer.mine.Reset();
  EXPECT_EQ(client.Request("GET", "/", "", 1s).error().code(), ErrorCode::kUnavailable);
}

TEST(UnixClientTest, ALineBreakInATargetIsNotSent) {
  Peer peer;
  auto client = peer.Client();
  EXPECT_EQ(client.Request("GET", "/a HTTP/1.1\r\nX: y", "", 1s).error().code(),
            ErrorCode::kInvalid);
}

}  // namespace
}  // namespace dormouse::http
