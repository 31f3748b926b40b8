// The one seam between Dormouse and an HTTP library: requests and streams to one API server.
//
// Thread-safe: any number of threads call at once, each blocked in its own call. An implementation
// owns connections, TLS, credentials and their rotation; it adds the Authorization header, and
// after a 401 takes a fresh token and tries once more. It retries nothing else: the callers' queues
// do. Any HTTP status is a success here; an Error means that no whole answer came: kUnavailable
// (refused, reset, truncated), kDeadline, kCancelled (`stop`), kInvalid (the configuration cannot
// work), kPermission (TLS: certificate refused).
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse::kube {

struct HttpRequest {
  std::string method = "GET";
  std::string target{};        ///< path and query, percent-encoded, from "/"
  std::string content_type{};  ///< empty = no body is sent
  std::string body{};
  std::chrono::milliseconds timeout{30'000};  ///< wall clock, of the whole exchange
};

struct HttpResponse {
  int status = 0;
  std::optional<std::chrono::seconds> retry_after{};  ///< only its form in seconds
  std::string body{};                                 ///< bounded by the implementation (32 MiB)
};

struct StreamRequest {
  std::string target{};
  std::chrono::milliseconds idle_limit{
      130'000};  ///< without a byte; a watch has a bookmark each 60 s
  std::chrono::milliseconds total_limit{11 * 60'000};  ///< wall clock
  /// Accept gzip: for large lists, never for a watch. A body reaches the sink in pieces of the
  /// server's chunks, inflated: one plain chunk of 100 MB would be held in whole.
  bool compressed = false;
};

/// Takes the next bytes of a body. It runs on a thread of the transport, one call at a time, and
/// until it returns nothing more is read from the connection: that is the back-pressure. It must
/// not wait for the network. An error ends the stream, which then fails with it.
using StreamSink = std::function<Result<>(std::string_view)>;

class HttpTransport {
 public:
  virtual ~HttpTransport() = default;

  [[nodiscard]] virtual Result<HttpResponse> Request(const HttpRequest& request,
                                                     const std::stop_token& stop) = 0;
  [[nodiscard]] Result<HttpResponse> Request(const HttpRequest& request) {
    return Request(request, std::stop_token());
  }

  /// GETs `target` and hands a body of status 200 to `sink` as it comes; returns after its regular
  /// end with an empty body. Any other status comes back with its body (64 KiB at most), the sink
  /// unused. When this has returned, `sink` is not called any more.
  [[nodiscard]] virtual Result<HttpResponse> Stream(const StreamRequest& request,
                                                    const StreamSink& sink,
                                                    const std::stop_token& stop) = 0;
};

}  // namespace dormouse::kube
