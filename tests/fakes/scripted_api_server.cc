#include "tests/fakes/scripted_api_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>

namespace dormouse::kube {
namespace {

int Listen(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(fd, 64) != 0) {
    std::perror("scripted API server");
    std::abort();
  }
  return fd;
}

int PortOf(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

bool SendAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

bool SendChunks(int fd, std::string_view body) {
  constexpr std::size_t kChunk = 64 * 1024;
  while (!body.empty()) {
    const std::string_view part = body.substr(0, kChunk);
    char size[32];
    std::snprintf(size, sizeof(size), "%zx\r\n", part.size());
    if (!SendAll(fd, size + std::string(part) + "\r\n")) return false;
    body.remove_prefix(part.size());
  }
  return true;
}

std::size_t ContentLength(const std::string& head) {
  const std::size_t at = head.find("Content-Length:");
  return at == std::string::npos ? 0 : static_cast<std::size_t>(std::atol(head.c_str() + at + 15));
}

}  // namespace

ScriptedApiServer::ScriptedApiServer() {
  listener_ = Listen(0);
  port_ = PortOf(listener_);
  acceptor_ = std::thread([this] { Accept(); });
}

ScriptedApiServer::~ScriptedApiServer() {
  GoDown();
}

void ScriptedApiServer::Push(Reply reply) {
  std::lock_guard lock(mutex_);
  replies_.push_back(std::move(reply));
}

std::vector<ScriptedApiServer::Seen> ScriptedApiServer::seen() const {
  std::lock_guard lock(mutex_);
  return seen_;
}

bool ScriptedApiServer::WaitForRequests(std::size_t count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return seen_.size() >= count; });
}

void ScriptedApiServer::GoDown() {
  std::vector<std::thread> threads;
  {
    std::lock_guard lock(mutex_);
    if (down_) return;
    down_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    for (int fd : open_) ::shutdown(fd, SHUT_RDWR);
  }
  acceptor_.join();
  {
    std::lock_guard lock(mutex_);
    threads.swap(threads_);
  }
  for (auto& thread : threads) thread.join();
  ::close(listener_);
}

void ScriptedApiServer::ComeBack() {
  down_ = false;
  listener_ = Listen(port_);
  acceptor_ = std::thread([this] { Accept(); });
}

void ScriptedApiServer::Accept() {
  while (true) {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const int one = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    std::lock_guard lock(mutex_);
    if (down_) {
      ::close(fd);
      return;
    }
    open_.push_back(fd);
    threads_.emplace_back([this, fd, connection = ++connections_] {
      Serve(fd, connection);
      std::lock_guard inner(mutex_);
      open_.erase(std::find(open_.begin(), open_.end(), fd));
      ::close(fd);
    });
  }
}

void ScriptedApiServer::Serve(int fd, int connection) {
  std::string pending;
  std::array<char, 8192> block{};
  while (true) {
    std::size_t end = 0;
    while ((end = pending.find("\r\n\r\n")) == std::string::npos ||
           pending.size() < end + 4 + ContentLength(pending.substr(0, end))) {
      const ssize_t got = ::recv(fd, block.data(), block.size(), 0);
      if (got <= 0) return;
      pending.append(block.data(), static_cast<std::size_t>(got));
    }
    const std::size_t length = ContentLength(pending.substr(0, end));
    Reply reply{.status = 500, .body = "nothing scripted"};
    {
      std::lock_guard lock(mutex_);
      seen_.push_back({pending.substr(0, end), pending.substr(end + 4, length), connection});
      if (!replies_.empty()) {
        reply = std::move(replies_.front());
        replies_.pop_front();
      }
    }
    changed_.notify_all();
    pending.erase(0, end + 4 + length);
    if (!Send(fd, reply)) return;
  }
}

/// False when the connection is over.
bool ScriptedApiServer::Send(int fd, const Reply& reply) {
  std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " Scripted\r\n" + reply.headers;
  if (head.find("Content-Type") == std::string::npos) head += "Content-Type: application/json\r\n";
  const bool cut =
      reply.then == Then::kTruncate || reply.then == Then::kReset || reply.then == Then::kSilence;
  if (reply.chunked) {
    if (!SendAll(fd, head + "Transfer-Encoding: chunked\r\n\r\n") || !SendChunks(fd, reply.body))
      return false;
    if (!cut && !SendAll(fd, "0\r\n\r\n")) return false;
    // A chunk that promises more than ever comes.
    if (cut && reply.then != Then::kSilence) (void)SendAll(fd, "a\r\nhalf");
  } else {
    head += "Content-Length: " + std::to_string(reply.body.size() + (cut ? 10 : 0)) + "\r\n\r\n";
    if (!SendAll(fd, head + reply.body)) return false;
  }
  switch (reply.then) {
    case Then::kKeepAlive:
      return true;
    case Then::kReset: {
      const linger reset{1, 0};
      ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
      return false;
    }
    case Then::kSilence: {
      // Until the client, or GoDown, ends it.
      char byte = 0;
      while (::recv(fd, &byte, 1, 0) > 0) {
      }
      return false;
    }
    default:
      return false;
  }
}

}  // namespace dormouse::kube
