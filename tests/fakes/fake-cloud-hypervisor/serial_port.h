// The guest's serial line as a listening socket: one client at a time, 1 MiB kept for the next
// while nobody is connected, the oldest dropped (serial_buffer, v53.0). Thread-safe.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "src/common/base/unique_fd.h"
#include "tests/fakes/fake-cloud-hypervisor/answer.h"

namespace dormouse::fake_vmm {

class SerialPort {
 public:
  /// Refuses when something is at `path`, as the real one does.
  static Outcome<std::unique_ptr<SerialPort>> Listen(const std::string& path);
  ~SerialPort();
  /// From now on the socket is removed at the end. A VM that never came so far as to have a serial
  /// device leaves it behind (v53.0).
  void RemoveAtEnd() { remove_ = true; }

  void Write(std::string_view bytes);
  /// Writes for ever from now on, or stops to.
  void Flood(bool on);

 private:
  SerialPort(std::string path, UniqueFd listener, UniqueFd wake);
  void Run();
  void Wake() const;

  const std::string path_;
  const UniqueFd listener_;
  const UniqueFd wake_;
  std::mutex mutex_;
  std::string buffer_;
  bool flooding_ = false;
  bool stopping_ = false;
  bool remove_ = false;
  std::thread thread_;
};

/// Binds and listens; the errno of what failed in `errnum` when the descriptor is invalid.
UniqueFd ListenAt(const std::string& path, int backlog, int* errnum);

}  // namespace dormouse::fake_vmm
