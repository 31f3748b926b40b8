// A small HTTP/1.1 server on Boost.Beast for what operators and programs read: /healthz, /readyz,
// /metrics, and the tables of a local tool. TCP or a unix socket; one thread for all of it.
//
// The peer is not trusted: heads, bodies, the number of connections and every wait are bounded
// (a slow writer of headers is cut off, an idle connection is closed). When all connections are
// taken, a new one closes the one that was served or accepted longest ago, so that idle peers
// cannot keep a probe out. Names that are not registered are 404, a handler's exception is a 500.
// Handlers run on the server's thread, one at a time: they must be quick and must not block; work
// that takes time belongs elsewhere.
//
// Handle() before Start(). Start, Stop and the destructor are called by the owner's thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "src/common/base/result.h"

namespace dormouse::http {

struct ServerRequest {
  std::string method;
  std::string path;   ///< without the query, not percent-decoded
  std::string query;  ///< after '?', as sent
  std::string body;
};

struct ServerResponse {
  int status = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
};

using Handler = std::function<ServerResponse(const ServerRequest&)>;

struct ServerLimits {
  std::size_t head_bytes = 32 * 1024;
  std::size_t body_bytes = 1024 * 1024;
  std::size_t connections = 64;                 ///< one more closes the oldest; at least 1
  std::chrono::milliseconds head_time{10'000};  ///< from the first wait to the whole request
  std::chrono::milliseconds idle_time{90'000};  ///< between requests of a connection
};

class Server {
 public:
  /// Binds "host:port" (port 0 = any free one; host "" = every address; "[::1]:80" for IPv6) or
  /// "unix:/path" (mode 0600; a file that nobody listens on is replaced). kBusy when it is taken.
  [[nodiscard]] static Result<std::unique_ptr<Server>> Listen(const std::string& address,
                                                              ServerLimits limits = {});
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Serves `path` exactly; one that ends in "/" serves all below it, the longest match wins. HEAD
  /// is answered by the GET handler without its body; other methods than `method` are 405.
  void Handle(const std::string& method, const std::string& path, Handler handler);

  void Start();
  /// Closes every connection and ends the thread; safe to call twice.
  void Stop();

  /// The port that was bound; 0 for a unix socket.
  [[nodiscard]] uint16_t port() const;

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace dormouse::http
