// One end of a connection on the agent's local socket: bytes in and out without ever blocking
// longer than was said, every buffer bounded. Server and ctl use the same.
//
// Not thread-safe, but for Abort: one owner.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"
#include "src/common/guest/frame.h"

namespace dormouse {

class StreamSocket {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// Takes a connected stream socket, and makes it non-blocking.
  explicit StreamSocket(UniqueFd socket);
  StreamSocket(StreamSocket&&) noexcept = default;
  StreamSocket& operator=(StreamSocket&&) noexcept = default;

  /// Connects to the unix socket at `path`. kNotFound: no such file; kUnavailable: nobody listens;
  /// kPermission: only root may.
  static Result<StreamSocket> Connect(const std::string& path);

  /// The bytes before the first newline, which is consumed. kInvalid when it is not among the first
  /// `max_bytes`, kDeadline, kUnavailable when the peer hung up, kCancelled when `stop_fd` (or -1)
  /// became readable.
  Result<std::string> ReadLine(size_t max_bytes, Time deadline, int stop_fd = -1);

  /// Reads what there is, once, into the decoder; false at the end of the stream. Next() is then
  /// asked.
  Result<bool> Fill();
  /// The next frame of what was read; valid until the next Fill or Next.
  Result<std::optional<guest::Frame>> Next() { return decoder_.Next(); }

  /// Appends to what waits to be sent.
  void Queue(std::string_view bytes) { outgoing_.append(bytes); }
  [[nodiscard]] size_t queued() const { return outgoing_.size() - sent_; }
  /// Sends what the kernel takes now.
  Result<> Flush();
  /// Sends all that is queued; the deadline is for the whole of it.
  Result<> FlushAll(Time deadline, int stop_fd = -1);

  /// From any thread: the peer sees the end, and whoever waits here gets an error.
  void Abort() const;
  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  /// Waits for `events`; kDeadline, or kCancelled by `stop_fd`.
  Result<> Wait(short events, Time deadline, int stop_fd) const;

  UniqueFd socket_;
  std::string outgoing_;
  size_t sent_ = 0;
  guest::FrameDecoder decoder_;
};

}  // namespace dormouse
