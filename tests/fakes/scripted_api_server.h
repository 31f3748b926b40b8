// A plain-HTTP server on the loopback that misbehaves as told, for tests of the transport:
// truncated chunks, silence, 429 storms, a restart on the same port.
//
// Thread-safe. One thread accepts, one serves each connection; all end with the server.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace dormouse::kube {

class ScriptedApiServer {
 public:
  struct Seen {
    std::string head;  ///< request line and headers
    std::string body;
    int connection = 0;
  };
  enum class Then {
    kKeepAlive,  ///< the answer is whole
    kClose,      ///< the answer is whole, the connection ends
    kTruncate,   ///< the connection ends within the answer
    kReset,      ///< as kTruncate, with a RST
    kSilence,    ///< nothing more comes, the connection stays until the client or GoDown ends it
  };
  struct Reply {
    int status = 200;
    std::string body{};
    std::string headers{};  ///< each with its CRLF
    bool chunked = false;   ///< as a stream; else with a length
    Then then = Then::kKeepAlive;
  };

  ScriptedApiServer();
  ~ScriptedApiServer();
  ScriptedApiServer(const ScriptedApiServer&) = delete;
  ScriptedApiServer& operator=(const ScriptedApiServer&) = delete;

  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  /// The replies to the next requests, in order; without one a request is answered 500.
  void Push(Reply reply);
  [[nodiscard]] std::vector<Seen> seen() const;
  /// Waits until `count` requests were seen.
  bool WaitForRequests(std::size_t count);
  /// Ends all connections and refuses new ones.
  void GoDown();
  /// Listens again on the same port.
  void ComeBack();

 private:
  void Accept();
  void Serve(int fd, int connection);
  bool Send(int fd, const Reply& reply);

  int port_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Reply> replies_;
  std::vector<Seen> seen_;
  std::vector<int> open_;
  std::vector<std::thread> threads_;
  int listener_ = -1;
  int connections_ = 0;
  bool down_ = false;
  std::thread acceptor_;
};

}  // namespace dormouse::kube
