#include "node-agent/serve/control_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <random>

#include "node-agent/serve/ctl_client.h"
#include "node-agent/serve/serve_test_parts.h"

namespace dormouse {
namespace {

using std::chrono::milliseconds;

class ControlServerTest : public ServeTest {
 protected:
  /// Sends `bytes` as they are and reads the answer to its end, 10 s at most.
  std::string Exchange(std::string_view bytes) {
    auto client = StreamSocket::Connect(socket());
    if (!client) return "connect: " + client.error().message();
    client->Queue(bytes);
    (void)client->Flush();
    return ReadToEnd(*client);
  }
  static std::string ReadToEnd(StreamSocket& client) {
    std::string answer;
    for (;;) {
      pollfd polled{client.fd(), POLLIN, 0};
      if (::poll(&polled, 1, 10'000) <= 0) return answer + "(no end)";
      char buffer[4096];
      const ssize_t got = ::recv(client.fd(), buffer, sizeof(buffer), 0);
      if (got <= 0) return answer;
      answer.append(buffer, static_cast<size_t>(got));
    }
  }
  void ExpectHealthy() {
    const auto list = AskAgent(socket(), {.verb = CtlVerb::kList});
    ASSERT_TRUE(list) << list.error().message();
    EXPECT_NE(list->find("\"web\""), std::string::npos);
  }
};

TEST_F(ControlServerTest, TheSocketIsRootsAloneAndGoesWithTheServer) {
  StartServer();
  struct stat info {};
  ASSERT_EQ(::stat(socket().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  server_.reset();
  EXPECT_NE(::stat(socket().c_str(), &info), 0);
}

TEST_F(ControlServerTest, AnotherUidIsRefusedEvenWhereItCanConnect) {
  options_.allowed_uid = ::geteuid() + 1;
  StartServer();
  const auto list = AskAgent(socket(), {.verb = CtlVerb::kList});
  ASSERT_FALSE(list);
  EXPECT_EQ(list.error().code(), ErrorCode::kPermission);
}

TEST_F(ControlServerTest, ASocketThatAKilledAgentLeftIsReplaced) {
  // Bound and closed without unlink.
  StartServer();
  const std::string kept = socket() + ".kept";
  ASSERT_EQ(::link(socket().c_str(), kept.c_str()), 0);
  server_.reset();
  ASSERT_EQ(::rename(kept.c_str(), socket().c_str()), 0);
  StartServer();
  ExpectHealthy();
}

TEST_F(ControlServerTest, ASecondAgentIsToldThatOneRuns) {
  StartServer();
  const auto second = ControlServer::Listen(view_, options_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), ErrorCode::kBusy);
  ExpectHealthy();
}

TEST_F(ControlServerTest, GarbageIsAnsweredAndCostsNothing) {
  StartServer();
  std::mt19937 random(7);
  for (int i = 0; i < 50; ++i) {
    std::string garbage(random() % 3000, '\0');
    for (char& c : garbage) c = static_cast<char>(random());
    garbage.push_back('\n');
    const std::string answer = Exchange(garbage);
    EXPECT_NE(answer.find("request"), std::string::npos) << answer;
  }
  EXPECT_NE(Exchange("GET / HTTP/1.1\r\nHost: x\r\n\r\n").find("not a JSON object"),
            std::string::npos);
  ExpectHealthy();
}

TEST_F(ControlServerTest, AnEndlessLineIsCutOff) {
  StartServer();
  EXPECT_NE(Exchange(std::string(kMaxRequestLine + 5000, 'x')).find("too long"), std::string::npos);
  ExpectHealthy();
}

TEST_F(ControlServerTest, ASilentClientIsSentAway) {
  options_.request_time = milliseconds(50);
  StartServer();
  EXPECT_NE(Exchange("{\"verb\":").find("took too long"), std::string::npos);
  ExpectHealthy();
}

TEST_F(ControlServerTest, AClientThatDoesNotReadIsLeftBehind) {
  options_.request_time = milliseconds(50);
  view_.more = 2'000;  // an answer that no socket buffer holds
  StartServer();
  auto client = StreamSocket::Connect(socket());
  ASSERT_TRUE(client);
  client->Queue("{\"verb\":\"list\"}\n");
  ASSERT_TRUE(client->Flush());
  pollfd polled{client->fd(), POLLRDHUP, 0};  // the server closes, though nothing was read
  EXPECT_EQ(::poll(&polled, 1, 10'000), 1);
  const auto list = AskAgent(socket(), {.verb = CtlVerb::kList});
  ASSERT_TRUE(list) << list.error().message();
  EXPECT_GT(list->size(), 500'000U) << "a large answer comes whole";
}

TEST_F(ControlServerTest, IdleClientsKeepNobodyOut) {
  StartServer();
  std::vector<StreamSocket> idle;
  for (size_t i = 0; i < options_.max_clients; ++i) {
    auto client = StreamSocket::Connect(socket());
    ASSERT_TRUE(client) << client.error().message();
    idle.push_back(*std::move(client));
  }
  ExpectHealthy();
  pollfd polled{idle.front().fd(), POLLRDHUP, 0};
  EXPECT_EQ(::poll(&polled, 1, 10'000), 1) << "the oldest made room";
  polled.fd = idle.back().fd();
  EXPECT_EQ(::poll(&polled, 1, 0), 0);
}

TEST_F(ControlServerTest, MoreBusyClientsThanTheBoundAreToldSo) {
  options_.max_clients = 1;
  options_.request_time = std::chrono::seconds(20);
  view_.more = 2'000;  // an answer that no socket buffer holds
  StartServer();
  auto busy = StreamSocket::Connect(socket());
  ASSERT_TRUE(busy);
  busy->Queue("{\"verb\":\"list\"}\n");
  ASSERT_TRUE(busy->Flush());
  pollfd polled{busy->fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&polled, 1, 10'000), 1) << "its answer has begun";
  EXPECT_NE(Exchange("").find("too many clients"), std::string::npos);
  (void)ReadToEnd(*busy);  // it ends
  // Its thread is about to be done: the next clients are refused until it is.
  Result<std::string> list = Fail(ErrorCode::kBusy, "");
  for (int i = 0; i < 10'000 && !list; ++i) list = AskAgent(socket(), {.verb = CtlVerb::kList});
  EXPECT_TRUE(list);
}

TEST_F(ControlServerTest, StopEndsWaitingClients) {
  StartServer();
  auto silent = StreamSocket::Connect(socket());
  ASSERT_TRUE(silent);
  const auto began = std::chrono::steady_clock::now();
  server_->Stop();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(3));
}

}  // namespace
}  // namespace dormouse
