// A blocking HTTP/1.1 client over a unix socket (RFC 9112), for a peer that is ours or a VMM.
//
// Written for Cloud Hypervisor's micro_http as much as for our own server: a status line without a
// reason phrase ("HTTP/1.1 204 \r\n") and a 204 without Content-Length are answers like any other,
// a request without a body carries no body at all, and none is chunked.
//
// One connection, kept alive; one request at a time; not thread-safe (one owner, or one each).
// The peer is not trusted: head and body are bounded, and every call ends by its deadline. After a
// failed Request the connection is closed and the next call fails with kUnavailable: adopt another.
// Nothing is ever sent twice. A request that the peer already acts upon is not undone by a timeout.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::http {

struct Response {
  int status = 0;    ///< as sent; 1xx answers are skipped
  std::string body;  ///< empty where there is none
};

/// What a client takes from its peer at most.
struct ResponseLimits {
  std::size_t head_bytes = 16 * 1024;
  std::size_t body_bytes = 8 * 1024 * 1024;
};

class UnixClient {
 public:
  /// Speaks over a connected stream socket (ConnectUnix, or host::ConnectVmm to a VMM).
  [[nodiscard]] static Result<UnixClient> Adopt(UniqueFd socket, ResponseLimits limits = {});

  UnixClient(UnixClient&&) = default;
  UnixClient& operator=(UnixClient&&) = default;

  /// Sends one request and reads its answer; any status is a success here. An empty `body` sends
  /// none; otherwise it is sent as application/json with its length. kDeadline when the whole
  /// exchange took longer than `timeout`, kUnavailable when the peer went away, kCorrupt when the
  /// answer is not HTTP or exceeds the limits.
  [[nodiscard]] Result<Response> Request(std::string_view method, std::string_view target,
                                         std::string_view body, std::chrono::milliseconds timeout);

  /// False after a failed request, or when the peer asked to close.
  [[nodiscard]] bool connected() const { return socket_.valid(); }
  /// For poll() and for a caller that half-closes; still owned here.
  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  UnixClient(UniqueFd socket, ResponseLimits limits)
      : socket_(std::move(socket)), limits_(limits) {}

  UniqueFd socket_;
  ResponseLimits limits_;
};

}  // namespace dormouse::http
