#include "tests/fakes/fake-cloud-hypervisor/serial_port.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "src/common/base/unix_socket.h"

namespace dormouse::fake_vmm {
namespace {

constexpr size_t kKept = size_t{1} << 20;
constexpr size_t kFloodAtOnce = 32 * 1024;

}  // namespace

UniqueFd ListenAt(const std::string& path, int backlog, int* errnum) {
  auto listener = ListenUnix(path, backlog);
  if (!listener) *errnum = listener.error().errnum();
  return listener ? *std::move(listener) : UniqueFd();
}

Outcome<std::unique_ptr<SerialPort>> SerialPort::Listen(const std::string& path) {
  int errnum = 0;
  UniqueFd listener = ListenAt(path, 8, &errnum);
  if (!listener)
    return Refuse(
        {"Error creating console devices", "Error creating console device", OsCause(errnum)});
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return std::unique_ptr<SerialPort>(new SerialPort(path, std::move(listener), std::move(wake)));
}

SerialPort::SerialPort(std::string path, UniqueFd listener, UniqueFd wake)
    : path_(std::move(path)),
      listener_(std::move(listener)),
      wake_(std::move(wake)),
      thread_([this] { Run(); }) {}

SerialPort::~SerialPort() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  Wake();
  thread_.join();
  if (remove_) ::unlink(path_.c_str());
}

void SerialPort::Wake() const {
  const uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof(one));
}

void SerialPort::Write(std::string_view bytes) {
  {
    const std::lock_guard lock(mutex_);
    buffer_.append(bytes);
    if (buffer_.size() > kKept) buffer_.erase(0, buffer_.size() - kKept);
  }
  Wake();
}

void SerialPort::Flood(bool on) {
  {
    const std::lock_guard lock(mutex_);
    flooding_ = on;
  }
  Wake();
}

void SerialPort::Run() {
  const std::string spam = [] {
    std::string lines;
    while (lines.size() < kFloodAtOnce) lines += "the guest writes to its serial line for ever\r\n";
    return lines;
  }();
  UniqueFd client;
  for (;;) {
    short client_events = POLLIN;
    int timeout = -1;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      if (flooding_ && buffer_.size() < kKept - spam.size()) buffer_ += spam;
      if (flooding_) timeout = 1;
      if (!buffer_.empty()) client_events |= POLLOUT;
    }
    // One client at a time: the next waits in the backlog until this one has gone.
    std::array<pollfd, 3> fds = {pollfd{wake_.get(), POLLIN, 0},
                                 pollfd{client ? -1 : listener_.get(), POLLIN, 0},
                                 pollfd{client.get(), client_events, 0}};
    (void)::poll(fds.data(), fds.size(), timeout);
    uint64_t count = 0;
    if ((fds[0].revents & POLLIN) != 0) (void)!::read(wake_.get(), &count, sizeof(count));
    if ((fds[1].revents & POLLIN) != 0) {
      client.Reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      continue;
    }
    if ((fds[2].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
      std::array<char, 1024> typed;
      if (::read(client.get(), typed.data(), typed.size()) <= 0) client.Reset();
    }
    if (client && (fds[2].revents & POLLOUT) != 0) {
      const std::lock_guard lock(mutex_);
      const ssize_t sent = ::send(client.get(), buffer_.data(), buffer_.size(), MSG_NOSIGNAL);
      if (sent > 0) buffer_.erase(0, static_cast<size_t>(sent));
    }
  }
}

}  // namespace dormouse::fake_vmm
