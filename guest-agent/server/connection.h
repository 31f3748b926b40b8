// One host connection of the guest's server: a stream of frames in, a bounded outbox out.
//
// Lives on the EventLoop's thread. What its frames mean is the FrameHandler's business, which
// changes once, when a control connection turns into an exec or a log stream.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "guest-agent/server/event_loop.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"
#include "src/common/guest/frame.h"

namespace dormouse::guest {

class FrameHandler {
 public:
  virtual ~FrameHandler() = default;
  /// An error ends the connection: it is told to the peer (kError), then closed.
  [[nodiscard]] virtual Result<void> OnFrame(const Frame& frame) = 0;
  /// The outbox has room again.
  virtual void OnWritable() {}
};

class Connection {
 public:
  /// `on_closed` is called once, from the loop, and may destroy the connection.
  Connection(EventLoop& loop, UniqueFd fd, std::function<void()> on_closed);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  [[nodiscard]] Result<void> Start(std::unique_ptr<FrameHandler> handler);
  /// From within OnFrame: the frames after this one go to `handler`.
  void SwitchTo(std::unique_ptr<FrameHandler> handler);

  /// Queues a frame. Producers of bulk data ask HasRoom first; answers and exit are always taken.
  void Send(std::string_view frame);
  [[nodiscard]] bool HasRoom() const { return outbox_.size() < kOutboxBytes; }
  /// Closes once the outbox is empty and the peer has closed, at the latest after a few seconds:
  /// closing a vsock stream that holds unread bytes resets it, and the last frames would be lost.
  void Finish();
  /// At once.
  void Close();
  /// Closes when nothing has arrived for so long; zero = never. Counts anew with each frame.
  void SetIdleLimit(std::chrono::milliseconds limit);
  /// Nothing is done for it: it may be closed to make room for another.
  [[nodiscard]] bool IsIdle() const { return !closed_ && idle_limit_.count() > 0; }
  [[nodiscard]] EventLoop& loop() { return loop_; }

 private:
  static constexpr size_t kOutboxBytes = 64 * 1024;

  void OnEvents(uint32_t events);
  void ReadSome();
  void DeliverFrames();
  void Flush();
  void UpdateInterest();
  void RestartIdleTimer();

  EventLoop& loop_;
  UniqueFd fd_;
  std::function<void()> on_closed_;
  std::unique_ptr<FrameHandler> handler_;
  std::unique_ptr<FrameHandler> next_handler_;
  FrameDecoder decoder_;
  std::string outbox_;
  bool finishing_ = false;
  bool closed_ = false;
  std::chrono::milliseconds idle_limit_{0};
  EventLoop::TimerId idle_timer_ = 0;
};

}  // namespace dormouse::guest
