#include "guest-agent/server/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <cerrno>

namespace dormouse::guest {
namespace {
// epoll's user data: the descriptor below, the watch's serial above, so that a reused number is
// seen.
constexpr unsigned kSerialShift = 24;
constexpr uint64_t kFdMask = (uint64_t{1} << kSerialShift) - 1;
}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::Create() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return FailErrno("epoll_create1");
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return FailErrno("eventfd");
  const int wake_fd = wake.get();
  std::unique_ptr<EventLoop> loop(new EventLoop(std::move(epoll), std::move(wake)));
  EventLoop* self = loop.get();
  DORMOUSE_TRY(loop->Watch(wake_fd, EPOLLIN, [self, wake_fd](uint32_t) {
    eventfd_t count = 0;
    (void)::eventfd_read(wake_fd, &count);
    if (self->on_wake_) self->on_wake_();
  }));
  return loop;
}

EventLoop::EventLoop(UniqueFd epoll, UniqueFd wake)
    : epoll_(std::move(epoll)), wake_(std::move(wake)) {}

Result<void> EventLoop::Watch(int fd, uint32_t events, Callback callback) {
  watched_[fd] = {next_serial_++, 0, std::make_shared<Callback>(std::move(callback))};
  Change(fd, events);
  if (events != 0 && watched_[fd].events == 0) {
    watched_.erase(fd);
    return FailErrno("epoll_ctl");
  }
  return {};
}

void EventLoop::Change(int fd, uint32_t events) {
  const auto found = watched_.find(fd);
  if (found == watched_.end() || found->second.events == events) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = found->second.serial << kSerialShift | static_cast<uint64_t>(fd);
  // A registered descriptor reports hang-ups whatever was asked for, so "nothing" is "not
  // registered".
  const int verb = events == 0                 ? EPOLL_CTL_DEL
                   : found->second.events == 0 ? EPOLL_CTL_ADD
                                               : EPOLL_CTL_MOD;
  if (::epoll_ctl(epoll_.get(), verb, fd, &event) == 0) found->second.events = events;
}

void EventLoop::Forget(int fd) {
  Change(fd, 0);
  watched_.erase(fd);
}

EventLoop::TimerId EventLoop::After(std::chrono::milliseconds delay,
                                    std::function<void()> callback) {
  const TimerId id = next_timer_++;
  timers_.emplace(std::pair{std::chrono::steady_clock::now() + delay, id}, std::move(callback));
  return id;
}

void EventLoop::Cancel(TimerId id) {
  if (id == 0) return;
  for (auto at = timers_.begin(); at != timers_.end(); ++at) {
    if (at->first.second != id) continue;
    timers_.erase(at);
    return;
  }
}

int EventLoop::NextTimeout() const {
  if (timers_.empty()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first.first -
                                                                 std::chrono::steady_clock::now());
  return left.count() < 0 ? 0 : static_cast<int>(std::min<int64_t>(left.count(), 3'600'000));
}

void EventLoop::RunTimers() {
  const Instant now = std::chrono::steady_clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const auto callback = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    callback();
  }
}

void EventLoop::RunDeferred() {
  while (!deferred_.empty()) {
    std::vector<std::function<void()>> batch;
    batch.swap(deferred_);
    for (const auto& callback : batch) callback();
  }
}

void EventLoop::Dispatch(int fd, uint64_t serial, uint32_t events) {
  const auto found = watched_.find(fd);
  if (found == watched_.end() || found->second.serial != serial) return;
  const auto callback = found->second.callback;  // keeps it alive when it forgets itself
  (*callback)(events);
}

void EventLoop::Run() {
  epoll_event events[16];
  while (!stop_.load()) {
    const int count = ::epoll_wait(epoll_.get(), events, 16, NextTimeout());
    for (int i = 0; i < count; ++i) {
      Dispatch(static_cast<int>(events[i].data.u64 & kFdMask), events[i].data.u64 >> kSerialShift,
               events[i].events);
    }
    RunTimers();
    RunDeferred();
  }
}

void EventLoop::Stop() {
  stop_.store(true);
  Wake();
}

void EventLoop::Wake() {
  (void)::eventfd_write(wake_.get(), 1);
}

}  // namespace dormouse::guest
