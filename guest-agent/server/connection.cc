#include "guest-agent/server/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

#include "src/common/guest/messages.h"

namespace dormouse::guest {
namespace {
constexpr std::chrono::milliseconds kLinger{5'000};
}  // namespace

Connection::Connection(EventLoop& loop, UniqueFd fd, std::function<void()> on_closed)
    : loop_(loop), fd_(std::move(fd)), on_closed_(std::move(on_closed)) {}

Connection::~Connection() {
  loop_.Cancel(idle_timer_);
  if (fd_) loop_.Forget(fd_.get());
}

Result<void> Connection::Start(std::unique_ptr<FrameHandler> handler) {
  handler_ = std::move(handler);
  return loop_.Watch(fd_.get(), EPOLLIN, [this](uint32_t events) { OnEvents(events); });
}

void Connection::SwitchTo(std::unique_ptr<FrameHandler> handler) {
  next_handler_ = std::move(handler);
}

void Connection::Send(std::string_view frame) {
  if (closed_ || finishing_) return;
  const bool was_empty = outbox_.empty();
  outbox_.append(frame);
  if (was_empty) Flush();
  UpdateInterest();
}

void Connection::Finish() {
  if (closed_ || finishing_) return;
  finishing_ = true;
  SetIdleLimit(kLinger);
  Flush();
  UpdateInterest();
}

void Connection::Close() {
  if (closed_) return;
  closed_ = true;
  loop_.Cancel(idle_timer_);
  idle_timer_ = 0;
  loop_.Forget(fd_.get());
  loop_.Defer(on_closed_);
}

void Connection::SetIdleLimit(std::chrono::milliseconds limit) {
  idle_limit_ = limit;
  RestartIdleTimer();
}

void Connection::RestartIdleTimer() {
  loop_.Cancel(idle_timer_);
  idle_timer_ = 0;
  if (idle_limit_.count() > 0 && !closed_) {
    idle_timer_ = loop_.After(idle_limit_, [this] {
      idle_timer_ = 0;
      Close();
    });
  }
}

void Connection::UpdateInterest() {
  if (closed_) return;
  loop_.Change(fd_.get(), outbox_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

void Connection::OnEvents(uint32_t events) {
  if ((events & EPOLLOUT) != 0) {
    Flush();
    UpdateInterest();
    if (!closed_ && !finishing_ && HasRoom()) handler_->OnWritable();
  }
  if (!closed_ && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) ReadSome();
}

void Connection::ReadSome() {
  char buffer[16 * 1024];
  const ssize_t got = ::recv(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
  if (got < 0) {
    if (errno != EAGAIN && errno != EINTR) Close();
    return;
  }
  if (got == 0) {  // the host never half-closes
    Close();
    return;
  }
  if (finishing_) return;
  decoder_.Append({buffer, static_cast<size_t>(got)});
  DeliverFrames();
}

void Connection::DeliverFrames() {
  while (!closed_ && !finishing_) {
    auto frame = decoder_.Next();
    if (frame && !*frame) return;
    Result<void> handled;
    if (frame) {
      RestartIdleTimer();
      handled = handler_->OnFrame(**frame);
    } else {
      handled = Fail(frame.error());
    }
    if (next_handler_) handler_ = std::move(next_handler_);
    if (!handled) {
      Send(EncodeError(handled.error()));
      Finish();
    }
  }
}

void Connection::Flush() {
  while (!outbox_.empty()) {
    const ssize_t sent =
        ::send(fd_.get(), outbox_.data(), outbox_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) Close();
      return;
    }
    outbox_.erase(0, static_cast<size_t>(sent));
  }
  if (finishing_ && !closed_) (void)::shutdown(fd_.get(), SHUT_WR);
}

}  // namespace dormouse::guest
