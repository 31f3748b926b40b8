// The VMM's end of a guest's vsock, without a VMM: the host dials a unix socket, says "CONNECT
// 1024\n", is answered "OK <n>\n", and from then on speaks with the guest's server (Cloud
// Hypervisor v53.0, virtio-devices/src/vsock/unix/muxer.rs).
#pragma once

#include <poll.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>

#include "guest-agent/server/server.h"
#include "src/common/base/files.h"
#include "src/common/base/unique_fd.h"
#include "src/common/base/unix_socket.h"
#include "src/common/guest/frame.h"

namespace dormouse::fakes {

/// Reads "CONNECT <port>\n" (32 bytes at most); 0 for anything else.
inline uint32_t ReadConnect(int fd) {
  std::string line;
  while (line.size() < 32 && !line.ends_with('\n')) {
    pollfd ready{fd, POLLIN, 0};
    char c = 0;
    if (::poll(&ready, 1, 1000) <= 0 || ::read(fd, &c, 1) != 1) return 0;
    line += c;
  }
  uint32_t port = 0;
  if (line.size() < 10 || ::strncasecmp(line.c_str(), "CONNECT ", 8) != 0) return 0;
  std::from_chars(line.data() + 8, line.data() + line.size(), port);
  return port;
}

/// False when the host has hung up.
inline bool AnswerConnect(int fd, uint32_t port) {
  const std::string ok = "OK " + std::to_string(1'073'741'824 + port) + "\n";
  return ::send(fd, ok.data(), ok.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(ok.size());
}

/// A whole guest for tests: the server and its front at `path`, each on a thread of its own.
class GuestBehindVsock {
 public:
  GuestBehindVsock(const std::string& path, guest::Machine& machine,
                   guest::ServerOptions options = {})
      : server_(guest::Server::Create(UniqueFd(), machine, std::move(options)).value()),
        listener_((RemoveFile(path), ListenUnix(path).value())),
        stop_(::eventfd(0, EFD_CLOEXEC)),
        serving_([this] { server_->Run(); }),
        answering_([this] { Answer(); }) {}
  ~GuestBehindVsock() {
    const uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof(one));
    answering_.join();
    server_->Stop();
    serving_.join();
  }

 private:
  void Answer() {
    for (;;) {
      pollfd ready[] = {{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}};
      (void)::poll(ready, 2, -1);
      if (ready[0].revents != 0) return;
      UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!peer || ReadConnect(peer.get()) != guest::kVsockPort) continue;
      if (AnswerConnect(peer.get(), guest::kVsockPort)) server_->Adopt(std::move(peer));
    }
  }

  std::unique_ptr<guest::Server> server_;
  UniqueFd listener_;
  UniqueFd stop_;
  std::thread serving_, answering_;
};

}  // namespace dormouse::fakes
