#include "tests/fakes/fake-cloud-hypervisor/http.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <utility>

namespace dormouse::fake_vmm {
namespace {

constexpr size_t kMaxConnections = 10;
constexpr size_t kMaxLine = 1024;
constexpr size_t kMaxBody = 51'200;
constexpr std::string_view kFull =
    "HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
    "{ \"error\": \"Too many open connections\" }";

void Listen(int epoll, int fd, uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  (void)::epoll_ctl(epoll, operation, fd, &event);
}

std::string Head(int status, std::string_view server) {
  return "HTTP/1.1 " + std::to_string(status) + " \r\nServer: " + std::string(server) +
         "\r\nConnection: keep-alive\r\n";
}

}  // namespace

HttpServer::HttpServer(UniqueFd listener, int epoll_fd, Handler handler)
    : listener_(std::move(listener)), epoll_(epoll_fd), handler_(std::move(handler)) {
  Listen(epoll_, listener_.get(), EPOLLIN, EPOLL_CTL_ADD);
}

bool HttpServer::OnReady(int fd, uint32_t events) {
  if (fd == listener_.get()) {
    Accept();
    return true;
  }
  const auto found = connections_.find(fd);
  if (found == connections_.end()) return false;
  if ((events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP)) != 0) {
    connections_.erase(found);
    return true;
  }
  if ((events & EPOLLIN) != 0) Read(found->second);
  if (connections_.contains(fd)) Flush(fd);
  return true;
}

void HttpServer::Accept() {
  UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!peer) return;
  if (connections_.size() >= kMaxConnections) {
    (void)!::send(peer.get(), kFull.data(), kFull.size(), MSG_NOSIGNAL);
    return;
  }
  const int fd = peer.get();
  Listen(epoll_, fd, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_ADD);
  connections_[fd].fd = std::move(peer);
}

void HttpServer::Read(Connection& connection) {
  std::array<char, 4096> block;
  for (;;) {
    const ssize_t got = ::read(connection.fd.get(), block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    connection.input.append(block.data(), static_cast<size_t>(got));
    if (connection.input.size() > 2 * kMaxBody) break;
  }
  while (ParseOne(connection)) {
  }
}

void HttpServer::Flush(int fd) {
  Connection& connection = connections_.at(fd);
  while (!connection.output.empty()) {
    const ssize_t sent =
        ::send(fd, connection.output.data(), connection.output.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) break;
    if (sent < 0) {
      connections_.erase(fd);
      return;
    }
    connection.output.erase(0, static_cast<size_t>(sent));
  }
  const uint32_t writing = connection.output.empty() ? 0u : static_cast<uint32_t>(EPOLLOUT);
  Listen(epoll_, fd, EPOLLIN | EPOLLRDHUP | writing, EPOLL_CTL_MOD);
}

void HttpServer::Complain(Connection& connection, const std::string& why) {
  const std::string body =
      "{ \"error\": \"" + why + "\nAll previous unanswered requests will be dropped.\" }";
  connection.output +=
      Head(400, "Firecracker API") +
      "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
      "\r\n\r\n" + body;
  // The real one goes on to read what is left as the next request, which fails as well.
  connection.input.clear();
  connection.continued = false;
}

void HttpServer::Answer(Connection& connection, const Reply& reply) {
  connection.output += Head(reply.status, "Cloud Hypervisor API");
  if (reply.status == 204) {
    connection.output += "\r\n";
    return;
  }
  connection.output +=
      "Content-Type: application/json\r\nContent-Length: " + std::to_string(reply.body.size()) +
      "\r\n\r\n" + reply.body;
}

bool HttpServer::ParseOne(Connection& connection) {
  std::string_view input = connection.input;
  if (input.empty()) return false;
  const auto end_of_line = input.find("\r\n");
  if (end_of_line == std::string_view::npos) {
    if (input.size() > kMaxLine) Complain(connection, "Invalid request.");
    return false;
  }
  const std::string_view line = input.substr(0, end_of_line);
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (line.size() > kMaxLine || first == std::string_view::npos || first == last) {
    Complain(connection, "Invalid request.");
    return false;
  }
  Request request;
  request.method = line.substr(0, first);
  request.target = line.substr(first + 1, last - first - 1);
  if (request.method != "GET" && request.method != "PUT" && request.method != "PATCH") {
    Complain(connection, "Invalid HTTP Method: Unsupported HTTP method.");
    return false;
  }
  const std::string_view version = line.substr(last + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    Complain(connection, "Invalid HTTP Version: Unsupported HTTP version.");
    return false;
  }

  size_t length = 0;
  bool expects_continue = false;
  size_t at = end_of_line + 2;
  for (;;) {
    const auto end = input.find("\r\n", at);
    if (end == std::string_view::npos) {
      if (input.size() - at > kMaxLine) Complain(connection, "Invalid header.");
      return false;
    }
    const std::string_view header = input.substr(at, end - at);
    at = end + 2;
    if (header.empty()) break;
    const auto colon = header.find(':');
    if (header.size() > kMaxLine || colon == std::string_view::npos) {
      Complain(connection, "Invalid header.");
      return false;
    }
    std::string name(header.substr(0, colon));
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    std::string_view value = header.substr(colon + 1);
    while (value.starts_with(' ')) value.remove_prefix(1);
    if (name == "content-length") {
      const auto parsed = std::from_chars(value.data(), value.data() + value.size(), length);
      if (parsed.ec != std::errc() || parsed.ptr != value.data() + value.size()) {
        Complain(connection, "Invalid header. Reason: Invalid value. Key:Content-Length; Value: " +
                                 std::string(value));
        return false;
      }
    }
    if (name == "transfer-encoding" && value != "identity") {
      Complain(connection, "Unsupported header. Reason: Transfer-Encoding: " + std::string(value));
      return false;
    }
    if (name == "expect") expects_continue = true;
  }
  if (length > kMaxBody) {
    Complain(connection, "Request payload with size " + std::to_string(length) +
                             " is larger than the limit of 51200 allowed by server.");
    return false;
  }
  if (input.size() < at + length) {
    if (expects_continue && !connection.continued) {
      connection.output += Head(100, "Firecracker API") + "\r\n";
      connection.continued = true;
    }
    return false;
  }
  if (length > 0) request.body = std::string(input.substr(at, length));
  connection.input.erase(0, at + length);
  connection.continued = false;
  Answer(connection, handler_(request));
  return true;
}

}  // namespace dormouse::fake_vmm
