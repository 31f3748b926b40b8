#include "src/common/http/server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "src/common/base/files.h"
#include "src/common/base/unix_socket.h"
#include "src/common/http/probes.h"
#include "src/common/http/unix_client.h"

namespace dormouse::http {
namespace {

using namespace std::chrono_literals;

class ServerTest : public testing::Test {
 protected:
  ServerTest() {
    char name[] = "/tmp/dormouse-server-test-XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  ~ServerTest() override {
    server_.reset();
    EXPECT_TRUE(RemoveTree(directory_));
  }
  void Listen(ServerLimits limits = {}) {
    auto server = Server::Listen("unix:" + Path(), limits);
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
  }
  std::string Path() const { return directory_ + "/socket"; }
  UnixClient Connect() { return *UnixClient::Adopt(*ConnectUnix(Path())); }
  Response Ask(const std::string& method, const std::string& target, const std::string& body = "") {
    auto client = Connect();
    auto response = client.Request(method, target, body, 5s);
    EXPECT_TRUE(response) << response.error().message();
    return response ? *response : Response();
  }

  std::string directory_;
  std::unique_ptr<Server> server_;
};

UniqueFd ConnectTcp(uint16_t port) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return socket;
}

// True when the server has closed it; waits as long as a failing test may.
bool IsClosed(int socket) {
  pollfd entry{socket, POLLIN, 0};
  char byte = 0;
  return ::poll(&entry, 1, 5000) == 1 && ::recv(socket, &byte, 1, 0) <= 0;
}

TEST_F(ServerTest, ProbesSayWhatIsWrong) {
  Listen();
  metrics::Registry registry;
  registry.MakeCounter("things_total", "").Increment();
  std::atomic<bool> synced = false;
  ServeProbes(*server_, {},
              {{"cache",
                [&]() -> Result<> {
                  if (!synced) return Fail(ErrorCode::kUnavailable, "not synced");
                  return {};
                }}},
              registry);
  server_->Start();
  EXPECT_EQ(Ask("GET", "/healthz").status, 200);
  EXPECT_EQ(Ask("GET", "/readyz").status, 503);
  EXPECT_EQ(Ask("GET", "/readyz").body, "cache: not synced\n");
  synced = true;
  EXPECT_EQ(Ask("GET", "/readyz").status, 200);
  EXPECT_THAT(Ask("GET", "/metrics").body, testing::HasSubstr("things_total 1\n"));
}

TEST_F(ServerTest, RoutesByPathAndMethod) {
  Listen();
  server_->Handle("POST", "/v1/exec", [](const ServerRequest& request) {
    return ServerResponse{200, request.query + "|" + request.body};
  });
  server_->Handle("GET", "/v1/sandboxes/", [](const ServerRequest& request) {
    return ServerResponse{200, request.path};
  });
  server_->Start();
  EXPECT_EQ(Ask("POST", "/v1/exec?a=b", "hello").body, "a=b|hello");
  EXPECT_EQ(Ask("GET", "/v1/exec").status, 405);
  EXPECT_EQ(Ask("GET", "/v1/sandboxes/ns/name").body, "/v1/sandboxes/ns/name");
  EXPECT_EQ(Ask("GET", "/").status, 404);
  EXPECT_EQ(Ask("GET", "/v1/other").status, 404);
}

TEST_F(ServerTest, KeepsConnectionsAlive) {
  Listen();
  server_->Handle("GET", "/a", [](const ServerRequest&) { return ServerResponse{200, "a"}; });
  server_->Start();
  auto client = Connect();
  EXPECT_EQ(client.Request("GET", "/a", "", 1s)->body, "a");
  EXPECT_TRUE(client.connected());
  EXPECT_EQ(client.Request("HEAD", "/a", "", 1s)->body, "");
  EXPECT_EQ(client.Request("GET", "/a", "", 1s)->body, "a");
}

TEST_F(ServerTest, AHandlersExceptionIsA500) {
  Listen();
  server_->Handle("GET", "/a",
                  [](const ServerRequest&) -> ServerResponse { throw std::runtime_error("no"); });
  server_->Start();
  EXPECT_EQ(Ask("GET", "/a").status, 500);
}

TEST_F(ServerTest, TooMuchIsRefused) {
  Listen({.head_bytes = 4096, .body_bytes = 100});
  server_->Handle("POST", "/a", [](const ServerRequest&) { return ServerResponse{200, "a"}; });
  server_->Start();
  EXPECT_EQ(Ask("POST", "/a", std::string(101, 'x')).status, 413);
  EXPECT_EQ(Ask("POST", "/" + std::string(5000, 'x')).status, 431);
}

TEST_F(ServerTest, ASlowWriterOfHeadersIsCutOff) {
  Listen({.head_time = 30ms, .idle_time = 5s});
  server_->Start();
  auto client = Connect();
  ASSERT_TRUE(WriteAll(client.fd(), "GET /healthz HTTP/1.1\r\nX: "));
  pollfd entry{client.fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&entry, 1, 5000), 1);
  char byte = 0;
  EXPECT_EQ(::recv(client.fd(), &byte, 1, 0), 0) << "the server closes, without an answer";
}

TEST_F(ServerTest, ProbesAreAnsweredWhileIdleConnectionsTakeAllPlaces) {
  auto server = Server::Listen("127.0.0.1:0");
  ASSERT_TRUE(server) << server.error().message();
  const metrics::Registry registry;
  ServeProbes(**server, {}, {}, registry);
  (*server)->Start();
  std::vector<UniqueFd> idle;
  for (size_t i = 0; i < 2 * ServerLimits().connections; ++i) {
    idle.push_back(ConnectTcp((*server)->port()));
    // Half of them are in the middle of a request that never ends.
    if (i % 2 == 0) {
      ASSERT_TRUE(WriteAll(idle.back().get(), "GET /healthz HTTP/1.1\r\nX: "));
    }
    if (i % 16 != 0) continue;
    auto probe = *UnixClient::Adopt(ConnectTcp((*server)->port()));
    const auto answer = probe.Request("GET", "/healthz", "", 5s);
    ASSERT_TRUE(answer) << answer.error().message();
    EXPECT_EQ(answer->status, 200);
  }
  EXPECT_TRUE(IsClosed(idle.front().get())) << "the oldest made room";
}

TEST_F(ServerTest, OneConnectionTooManyClosesTheOneThatWasServedLongestAgo) {
  Listen({.connections = 2});
  server_->Handle("GET", "/a", [](const ServerRequest&) { return ServerResponse{200, "a"}; });
  server_->Start();
  auto older = Connect();
  ASSERT_TRUE(older.Request("GET", "/a", "", 5s));
  auto idle = Connect();
  ASSERT_TRUE(idle.Request("GET", "/a", "", 5s));
  ASSERT_TRUE(older.Request("GET", "/a", "", 5s)) << "served last from here on";
  auto newest = Connect();
  EXPECT_TRUE(newest.Request("GET", "/a", "", 5s));
  EXPECT_TRUE(IsClosed(idle.fd()));
  EXPECT_TRUE(older.Request("GET", "/a", "", 5s));
}

TEST_F(ServerTest, TheSocketIsTheOwnersAlone) {
  Listen();
  struct stat info {};
  ASSERT_EQ(::stat(Path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600);
  EXPECT_EQ(Server::Listen("unix:" + Path()).error().code(), ErrorCode::kBusy);
}

TEST_F(ServerTest, ASocketThatNobodyListensOnIsReplaced) {
  {
    UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    Listen();
    // Keep the file as a killed process would leave it.
    ASSERT_EQ(::link(Path().c_str(), (Path() + ".kept").c_str()), 0);
    server_.reset();
    ASSERT_EQ(::rename((Path() + ".kept").c_str(), Path().c_str()), 0);
  }
  Listen();
}

TEST_F(ServerTest, ServesTcp) {
  auto server = Server::Listen("127.0.0.1:0");
  ASSERT_TRUE(server) << server.error().message();
  (*server)->Handle("GET", "/a", [](const ServerRequest&) { return ServerResponse{200, "tcp"}; });
  (*server)->Start();
  auto client = *UnixClient::Adopt(ConnectTcp((*server)->port()));
  EXPECT_EQ(client.Request("GET", "/a", "", 1s)->body, "tcp");
  (*server)->Stop();
  (*server)->Stop();
}

TEST_F(ServerTest, AWrongAddressIsNamed) {
  EXPECT_THAT(Server::Listen("nonsense").error().message(), testing::HasSubstr("'nonsense'"));
  EXPECT_EQ(Server::Listen("127.0.0.1:99999").error().code(), ErrorCode::kInvalid);
}

}  // namespace
}  // namespace dormouse::http
