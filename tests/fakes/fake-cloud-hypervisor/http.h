// micro_http as v53.0 uses it (rev 5c2254d6): one thread, one request at a time, ten connections.
//
// Its quirks are kept: no reason phrase, a 204 without Content-Length, errors of parsing as 400
// with a raw newline in the body, a request line or header of 1,024 bytes and a body of 51,200 at
// most, no chunked bodies, the eleventh connection answered with 503 and closed. Not thread-safe.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "src/common/base/unique_fd.h"

namespace dormouse::fake_vmm {

struct Request {
  std::string method;  ///< GET, PUT or PATCH
  std::string target;
  std::optional<std::string> body;
};

struct Reply {
  int status = 204;
  std::string body;
};

class HttpServer {
 public:
  using Handler = std::function<Reply(const Request&)>;

  /// Adds its descriptors to `epoll_fd`, each under its own number as data.
  HttpServer(UniqueFd listener, int epoll_fd, Handler handler);

  /// Serves what epoll reported of `fd`; false when the descriptor is none of ours.
  bool OnReady(int fd, uint32_t events);

 private:
  struct Connection {
    UniqueFd fd;
    std::string input;
    std::string output;
    bool continued = false;
  };
  void Accept();
  void Read(Connection& connection);
  void Flush(int fd);
  // One request off the input, if a whole one is there.
  bool ParseOne(Connection& connection);
  static void Complain(Connection& connection, const std::string& why);
  static void Answer(Connection& connection, const Reply& reply);

  UniqueFd listener_;
  const int epoll_;
  const Handler handler_;
  std::map<int, Connection> connections_;
};

}  // namespace dormouse::fake_vmm
