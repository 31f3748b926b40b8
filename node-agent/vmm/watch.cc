#include "node-agent/vmm/watch.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "node-agent/guest/workload_question.h"
#include "node-agent/host/process.h"
#include "src/common/base/log.h"

namespace dormouse::vmm {
namespace {

using std::chrono::milliseconds;

constexpr size_t kRecent = 32;
constexpr auto kEventPause =
    milliseconds(10);  // between two reads of one file: a guest can make events
constexpr auto kFirstRetry = milliseconds(10);
constexpr auto kLastRetry = milliseconds(1000);

// What an epoll event is about: the low bits say which of an entry's descriptors, or one of ours.
enum class Source : uint64_t { kWake = 0, kInotify = 1, kPidfd = 2, kSerial = 3, kGuest = 4 };
constexpr uint64_t kSourceBits = 3;
uint64_t Tag(uint64_t entry, Source source) {
  return entry << kSourceBits | static_cast<uint64_t>(source);
}

struct Entry {
  uint64_t id = 0;
  WatchSpec spec;
  std::optional<EventTail> tail;
  int inotify_watch = -1;
  std::deque<Event> recent;
  std::optional<MonotonicTime> events_due;
  MonotonicTime events_read{};

  std::optional<SerialReader> serial;
  bool serial_listening = false;  // its descriptor is in the epoll set
  std::optional<MonotonicTime> serial_due;
  milliseconds serial_retry = kFirstRetry;
  WorkloadQuestion question;
  bool exited = false;
};

struct Pending {
  uint64_t id;
  std::string key;
  WatchNotice notice;
};

}  // namespace

class Watch::Loop {
 public:
  Loop(Callback callback, SerialOptions serial, const Clock& clock)
      : callback_(std::move(callback)), serial_options_(serial), clock_(clock) {}
  ~Loop() {
    if (thread_.joinable()) {
      {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
      }
      Wake();
      thread_.join();
    }
  }

  Result<> Start() {
    epoll_.Reset(::epoll_create1(EPOLL_CLOEXEC));
    wake_.Reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    inotify_.Reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (!epoll_ || !wake_ || !inotify_) return FailErrno("start VMM watch");
    DORMOUSE_TRY(Listen(wake_.get(), Tag(0, Source::kWake)));
    DORMOUSE_TRY(Listen(inotify_.get(), Tag(0, Source::kInotify)));
    thread_ = std::thread([this] { Run(); });
    return {};
  }

  Result<> Add(WatchSpec spec) {
    const std::string key = spec.key;
    Remove(key);
    const std::lock_guard lock(mutex_);
    Entry entry;
    entry.id = ++last_id_;
    entry.spec = std::move(spec);
    const MonotonicTime now = clock_.Now();
    if (!entry.spec.event_file.empty()) {
      DORMOUSE_ASSIGN(entry.tail, EventTail::Open(entry.spec.event_file, entry.spec.vmm));
      // The file that was opened: by its name the VMM could have any file watched. The watch first,
      // then the first read: what is written between the two is seen by either.
      const std::string opened = "/proc/self/fd/" + std::to_string(entry.tail->fd());
      entry.inotify_watch = ::inotify_add_watch(inotify_.get(), opened.c_str(), IN_MODIFY);
      if (entry.inotify_watch < 0) return FailErrno("watch event file " + entry.spec.event_file);
      entry.events_due = now;
    }
    if (entry.spec.pidfd) {
      if (auto listened = Listen(entry.spec.pidfd.get(), Tag(entry.id, Source::kPidfd));
          !listened) {
        if (entry.inotify_watch >= 0) (void)::inotify_rm_watch(inotify_.get(), entry.inotify_watch);
        return Fail(listened.error());
      }
    }
    if (entry.spec.serial_socket) entry.serial_due = now;
    entries_.emplace(key, std::move(entry));
    Wake();
    return {};
  }

  void Remove(const std::string& key) {
    {
      const std::lock_guard lock(mutex_);
      const auto found = entries_.find(key);
      if (found == entries_.end()) return;
      Entry& entry = found->second;
      // Closing a descriptor takes it out of the epoll set, but for one that was dup'ed: so by
      // hand.
      if (entry.spec.pidfd && !entry.exited) Forget(entry.spec.pidfd.get());
      if (entry.serial && entry.serial_listening) Forget(entry.serial->fd());
      DropQuestionLocked(entry);
      if (entry.inotify_watch >= 0) (void)::inotify_rm_watch(inotify_.get(), entry.inotify_watch);
      entries_.erase(found);
    }
    // A callback that had begun has ended after this.
    const std::lock_guard wait(dispatching_);
  }

  Result<> AwaitWorkload(const std::string& key, host::VmmSocket vsock) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end() || found->second.exited)
      return Fail(ErrorCode::kNotFound, "the VMM of " + key + " is not watched");
    DORMOUSE_TRY(found->second.question.Ask(std::move(vsock), clock_.Now()));
    Wake();
    return {};
  }

  void StopAwaiting(const std::string& key) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found != entries_.end()) DropQuestionLocked(found->second);
  }

  std::string SerialTail(const std::string& key, size_t lines) const {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end() || !found->second.serial) return {};
    return found->second.serial->ring().LastLines(lines);
  }

  std::optional<int> ExitStatus(const std::string& key) const {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end() || !found->second.spec.pidfd) return std::nullopt;
    return host::ExitStatusOf(found->second.spec.pidfd.get());
  }

  std::vector<Event> RecentEvents(const std::string& key) const {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return {};
    return {found->second.recent.begin(), found->second.recent.end()};
  }

 private:
  void Run();
  int TimeoutLocked() const;
  void OnEpollLocked(uint64_t tag, std::vector<Pending>* pending);
  void OnTimersLocked(std::vector<Pending>* pending);
  void OnInotifyLocked(std::vector<Pending>* pending);
  void ReadEventsLocked(Entry& entry, std::vector<Pending>* pending);
  void ConnectSerialLocked(Entry& entry);
  void ReadSerialLocked(Entry& entry);
  void TurnQuestionLocked(Entry& entry, std::vector<Pending>* pending,
                          bool (WorkloadQuestion::*turn)(MonotonicTime));
  void DropQuestionLocked(Entry& entry) const;
  void OnExitLocked(Entry& entry, std::vector<Pending>* pending);
  void Dispatch(std::vector<Pending>& pending);

  Entry* FindLocked(uint64_t id) {
    for (auto& [key, entry] : entries_) {
      if (entry.id == id) return &entry;
    }
    return nullptr;
  }
  Result<> Listen(int fd, uint64_t tag) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = tag;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return FailErrno("watch VMM");
    return {};
  }
  void Forget(int fd) const { (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }
  void Wake() const {
    const uint64_t one = 1;
    (void)!::write(wake_.get(), &one, sizeof(one));
  }

  const Callback callback_;
  const SerialOptions serial_options_;
  const Clock& clock_;
  UniqueFd epoll_;
  UniqueFd wake_;
  UniqueFd inotify_;
  std::mutex dispatching_;  // held while the callback runs; never taken while mutex_ is held
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  uint64_t last_id_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

void Watch::Loop::Run() {
  std::array<epoll_event, 64> ready;
  for (;;) {
    int timeout = -1;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return;
      timeout = TimeoutLocked();
    }
    const int count =
        ::epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), timeout);
    if (count < 0 && errno != EINTR) {
      log::Error("VMM watch stopped", {{"cause", std::strerror(errno)}});
      return;
    }
    std::vector<Pending> pending;
    {
      const std::lock_guard lock(mutex_);
      for (int i = 0; i < count; ++i)
        OnEpollLocked(ready[static_cast<size_t>(i)].data.u64, &pending);
      OnTimersLocked(&pending);
    }
    Dispatch(pending);
  }
}

int Watch::Loop::TimeoutLocked() const {
  std::optional<MonotonicTime> next;
  for (const auto& [key, entry] : entries_) {
    for (const auto& due : {entry.events_due, entry.serial_due, entry.question.due()}) {
      if (due && (!next || *due < *next)) next = due;
    }
  }
  if (!next) return -1;
  const auto left = std::chrono::ceil<milliseconds>(*next - clock_.Now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 60'000));
}

void Watch::Loop::OnEpollLocked(uint64_t tag, std::vector<Pending>* pending) {
  const auto source = static_cast<Source>(tag & ((1U << kSourceBits) - 1));
  if (source == Source::kWake) {
    uint64_t count = 0;
    (void)!::read(wake_.get(), &count, sizeof(count));
    return;
  }
  if (source == Source::kInotify) {
    OnInotifyLocked(pending);
    return;
  }
  Entry* entry = FindLocked(tag >> kSourceBits);
  if (entry == nullptr) return;
  if (source == Source::kPidfd) {
    OnExitLocked(*entry, pending);
  } else if (source == Source::kGuest) {
    TurnQuestionLocked(*entry, pending, &WorkloadQuestion::OnReadable);
  } else if (entry->serial) {
    ReadSerialLocked(*entry);
  }
}

void Watch::Loop::OnTimersLocked(std::vector<Pending>* pending) {
  const MonotonicTime now = clock_.Now();
  for (auto& [key, entry] : entries_) {
    if (entry.events_due && *entry.events_due <= now) ReadEventsLocked(entry, pending);
    if (entry.question.due() && *entry.question.due() <= now)
      TurnQuestionLocked(entry, pending, &WorkloadQuestion::OnDue);
    if (entry.serial_due && *entry.serial_due <= now) {
      entry.serial_due.reset();
      if (entry.serial && entry.serial->throttled_until()) {
        ReadSerialLocked(entry);
      } else if (!entry.exited) {
        ConnectSerialLocked(entry);
      }
    }
  }
}

void Watch::Loop::OnInotifyLocked(std::vector<Pending>* pending) {
  alignas(inotify_event) std::array<char, 4096> block;
  const ssize_t got = ::read(inotify_.get(), block.data(), block.size());
  if (got <= 0) return;
  const MonotonicTime now = clock_.Now();
  for (size_t at = 0; at + sizeof(inotify_event) <= static_cast<size_t>(got);) {
    inotify_event event{};
    std::memcpy(&event, block.data() + at, sizeof(event));
    at += sizeof(event) + event.len;
    for (auto& [key, entry] : entries_) {
      // An overflowed queue (wd -1) names nobody, so it may be anybody.
      if (entry.inotify_watch < 0 || (event.wd >= 0 && entry.inotify_watch != event.wd)) continue;
      if (entry.events_due) continue;
      entry.events_due = std::max(now, entry.events_read + kEventPause);
      if (*entry.events_due <= now) ReadEventsLocked(entry, pending);
    }
  }
}

void Watch::Loop::ReadEventsLocked(Entry& entry, std::vector<Pending>* pending) {
  entry.events_due.reset();
  entry.events_read = clock_.Now();
  if (!entry.tail) return;
  auto events = entry.tail->Read();
  if (!events) {
    log::Warning("event file of a VMM cannot be read",
                 {{"sandbox", entry.spec.key}, {"cause", events.error().message()}});
    return;
  }
  for (Event& event : *events) {
    // Device resets and the like, which a guest can make at will, are nobody's business here.
    if (event.kind == EventKind::kOther) continue;
    entry.recent.push_back(event);
    if (entry.recent.size() > kRecent) entry.recent.pop_front();
    pending->push_back({entry.id, entry.spec.key, {WatchNotice::Kind::kEvent, std::move(event)}});
  }
}

void Watch::Loop::ConnectSerialLocked(Entry& entry) {
  auto reader = SerialReader::Connect(*entry.spec.serial_socket, entry.spec.serial_log,
                                      serial_options_, clock_);
  if (!reader) {
    entry.serial_due = clock_.Now() + entry.serial_retry;
    entry.serial_retry = std::min(entry.serial_retry * 2, kLastRetry);
    return;
  }
  entry.serial = std::move(*reader);
  ReadSerialLocked(entry);
}

void Watch::Loop::ReadSerialLocked(Entry& entry) {
  const SerialReader::State state = entry.serial->OnReadable();
  const bool listen = state == SerialReader::State::kIdle;
  if (listen && !entry.serial_listening) {
    entry.serial_listening = Listen(entry.serial->fd(), Tag(entry.id, Source::kSerial)).has_value();
  } else if (!listen && entry.serial_listening) {
    Forget(entry.serial->fd());
    entry.serial_listening = false;
  }
  if (state == SerialReader::State::kIdle) entry.serial_retry = kFirstRetry;
  if (state == SerialReader::State::kThrottled) entry.serial_due = entry.serial->throttled_until();
  if (state == SerialReader::State::kClosed && !entry.exited) {
    // The VMM reboots the guest, or dies: what was read stays to be seen until there is a new line.
    entry.serial_due = clock_.Now() + entry.serial_retry;
    entry.serial_retry = std::min(entry.serial_retry * 2, kLastRetry);
  }
}

void Watch::Loop::TurnQuestionLocked(Entry& entry, std::vector<Pending>* pending,
                                     bool (WorkloadQuestion::*turn)(MonotonicTime)) {
  // Its descriptor may be another afterwards, of the same number.
  if (entry.question.fd() >= 0) Forget(entry.question.fd());
  bool look = (entry.question.*turn)(clock_.Now());
  if (entry.question.fd() >= 0 && !Listen(entry.question.fd(), Tag(entry.id, Source::kGuest))) {
    entry.question.Drop();
    look = true;
  }
  if (look) pending->push_back({entry.id, entry.spec.key, {WatchNotice::Kind::kWorkload, {}}});
}

void Watch::Loop::DropQuestionLocked(Entry& entry) const {
  if (entry.question.fd() >= 0) Forget(entry.question.fd());
  entry.question.Drop();
}

void Watch::Loop::OnExitLocked(Entry& entry, std::vector<Pending>* pending) {
  if (entry.exited) return;
  Forget(entry.spec.pidfd.get());
  // What it said last comes before the word of its death.
  if (entry.serial && !entry.serial->throttled_until()) ReadSerialLocked(entry);
  ReadEventsLocked(entry, pending);
  entry.exited = true;
  entry.serial_due.reset();
  DropQuestionLocked(entry);
  pending->push_back({entry.id, entry.spec.key, {WatchNotice::Kind::kExited, {}}});
}

void Watch::Loop::Dispatch(std::vector<Pending>& pending) {
  for (const Pending& item : pending) {
    const std::lock_guard running(dispatching_);
    {
      const std::lock_guard lock(mutex_);
      if (FindLocked(item.id) == nullptr) continue;
    }
    callback_(item.key, item.notice);
  }
}

Watch::Watch(std::unique_ptr<Loop> loop) : loop_(std::move(loop)) {}
Watch::~Watch() = default;

Result<std::unique_ptr<Watch>> Watch::Start(Callback callback, SerialOptions serial,
                                            const Clock& clock) {
  auto loop = std::make_unique<Loop>(std::move(callback), serial, clock);
  DORMOUSE_TRY(loop->Start());
  return std::unique_ptr<Watch>(new Watch(std::move(loop)));
}

Result<> Watch::Add(WatchSpec spec) {
  return loop_->Add(std::move(spec));
}
void Watch::Remove(const std::string& key) {
  loop_->Remove(key);
}
Result<> Watch::AwaitWorkload(const std::string& key, host::VmmSocket vsock) {
  return loop_->AwaitWorkload(key, std::move(vsock));
}
void Watch::StopAwaiting(const std::string& key) {
  loop_->StopAwaiting(key);
}
std::string Watch::SerialTail(const std::string& key, size_t lines) const {
  return loop_->SerialTail(key, lines);
}
std::optional<int> Watch::ExitStatus(const std::string& key) const {
  return loop_->ExitStatus(key);
}
std::vector<Event> Watch::RecentEvents(const std::string& key) const {
  return loop_->RecentEvents(key);
}

}  // namespace dormouse::vmm
