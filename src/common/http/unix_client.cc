#include "src/common/http/unix_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cerrno>

namespace dormouse::http {
namespace {

namespace beast = boost::beast;
using Deadline = std::chrono::steady_clock::time_point;

/// Waits until `fd` is ready for `events`; kDeadline when it is not in time.
Result<> WaitReady(int fd, short events, Deadline deadline, std::string_view what) {
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      return Fail(ErrorCode::kDeadline, std::string(what) + ": no answer in time");
    pollfd entry{fd, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::min<int64_t>(left.count(), 60'000)));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return FailErrno(what);
  }
}

Result<> SendAll(int fd, std::string_view bytes, Deadline deadline, std::string_view what) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN) {
      DORMOUSE_TRY(WaitReady(fd, POLLOUT, deadline, what));
    } else if (errno != EINTR) {
      return Fail(Error::FromErrno(what, errno).WithCode(ErrorCode::kUnavailable));
    }
  }
  return {};
}

using Parser = beast::http::response_parser<beast::http::string_body>;

/// Reads until `parser` is done. True when the peer has closed its side.
Result<bool> ReadResponse(int fd, Parser& parser, std::string& pending, Deadline deadline,
                          std::string_view what) {
  std::array<char, 16 * 1024> block;
  while (!parser.is_done()) {
    const ssize_t got = ::recv(fd, block.data(), block.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) {
      DORMOUSE_TRY(WaitReady(fd, POLLIN, deadline, what));
      continue;
    }
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Fail(Error::FromErrno(what, errno).WithCode(ErrorCode::kUnavailable));
    beast::error_code error;
    if (got == 0) {
      // A body without a length ends with the connection; anything else was cut short.
      if (parser.got_some()) parser.put_eof(error);
      if (error || !parser.is_done()) {
        return Fail(ErrorCode::kUnavailable,
                    std::string(what) + ": the peer closed the connection");
      }
      return true;
    }
    pending.append(block.data(), static_cast<std::size_t>(got));
    // The basic parser takes head and body in separate bites: put() until it wants more.
    while (!pending.empty() && !parser.is_done()) {
      const std::size_t used = parser.put(boost::asio::buffer(pending), error);
      pending.erase(0, used);
      if (error == beast::http::error::need_more) break;
      if (error) return Fail(ErrorCode::kCorrupt, std::string(what) + ": " + error.message());
    }
  }
  return false;
}

}  // namespace

Result<UnixClient> UnixClient::Adopt(UniqueFd socket, ResponseLimits limits) {
  if (!socket) return Fail(ErrorCode::kInvalid, "adopt a socket: none given");
  return UnixClient(std::move(socket), limits);
}

Result<Response> UnixClient::Request(std::string_view method, std::string_view target,
                                     std::string_view body, std::chrono::milliseconds timeout) {
  const std::string what = std::string(method) + " " + std::string(target);
  if (!socket_) return Fail(ErrorCode::kUnavailable, what + ": not connected");
  if (method.find_first_of(" \r\n") != std::string_view::npos || target.empty() ||
      target.find_first_of(" \r\n") != std::string_view::npos) {
    return Fail(ErrorCode::kInvalid, what + ": not a request");
  }
  // Closed again unless the exchange ends well: after a failure nobody knows what comes next on it.
  UniqueFd socket = std::move(socket_);
  const Deadline deadline = std::chrono::steady_clock::now() + timeout;

  std::string text = what + " HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n";
  if (!body.empty()) {
    text +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  }
  text += "\r\n";
  text += body;
  DORMOUSE_TRY(SendAll(socket.get(), text, deadline, what));

  std::string pending;
  while (true) {
    Parser parser;
    parser.header_limit(static_cast<uint32_t>(limits_.head_bytes));
    parser.body_limit(limits_.body_bytes);
    parser.eager(true);
    if (method == "HEAD") parser.skip(true);
    if (!pending.empty()) {
      beast::error_code error;
      pending.erase(0, parser.put(boost::asio::buffer(pending), error));
      if (error && error != beast::http::error::need_more) {
        return Fail(ErrorCode::kCorrupt, what + ": " + error.message());
      }
    }
    DORMOUSE_ASSIGN(const bool closed, ReadResponse(socket.get(), parser, pending, deadline, what));
    const int status = static_cast<int>(parser.get().result_int());
    if (status >= 100 && status < 200) {
      if (closed) return Fail(ErrorCode::kUnavailable, what + ": the peer closed the connection");
      continue;
    }
    // Bytes beyond the answer belong to nothing that was asked.
    if (!closed && parser.get().keep_alive() && pending.empty()) socket_ = std::move(socket);
    return Response{status, std::move(parser.get().body())};
  }
}

}  // namespace dormouse::http
