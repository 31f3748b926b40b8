#include "guest-agent/server/freezer.h"

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace dormouse::guest {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

milliseconds Until(steady_clock::time_point deadline) {
  return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(deadline - steady_clock::now()));
}

milliseconds Since(steady_clock::time_point began) {
  return std::chrono::duration_cast<milliseconds>(steady_clock::now() - began);
}

}  // namespace

Freezer::Freezer(EventLoop& loop, ProcessTable& processes, Machine& machine,
                 std::vector<const Cgroup*> cgroups, bool holding)
    : loop_(loop),
      processes_(processes),
      machine_(machine),
      cgroups_(std::move(cgroups)),
      holding_(holding),
      complete_(holding) {}

Freezer::~Freezer() {
  LeaveStage();
}

Freezer::WaiterId Freezer::Freeze(milliseconds limit, OnFrozen on_frozen) {
  if (complete_) {
    on_frozen({true, {}, 0});
    return 0;
  }
  const WaiterId id = next_waiter_++;
  waiters_.emplace(id, std::move(on_frozen));
  if (stage_ != Stage::kIdle) return id;
  began_ = steady_clock::now();
  deadline_ = began_ + limit;
  if (!holding_) {
    holding_ = true;
    if (on_freeze_) on_freeze_();
  }
  BeginStopping();
  return waiters_.contains(id) ? id : 0;
}

void Freezer::BeginStopping() {
  stage_ = Stage::kStopping;
  trouble_.clear();
  for (const Cgroup* cgroup : cgroups_) {
    if (const auto asked = cgroup->SetFrozen(true); !asked) trouble_ = asked.error().message();
    events_.push_back(cgroup->OpenEvents());
  }
  for (const UniqueFd& events : events_) {
    // Read before it is watched: only what comes after a read is told. Where it cannot be watched,
    // the timer below looks once more.
    if (SaysFrozen(events)) continue;
    (void)loop_.Watch(events.get(), EPOLLPRI, [this](uint32_t) { CheckStopped(); });
  }
  timer_ = loop_.After(Until(deadline_) / 2, [this] {
    timer_ = 0;
    BeginSync();
  });
  CheckStopped();
}

bool Freezer::AllStopped() const {
  return std::all_of(events_.begin(), events_.end(), SaysFrozen);
}

void Freezer::CheckStopped() {
  if (AllStopped()) BeginSync();
}

void Freezer::BeginSync() {
  stage_ = Stage::kSyncing;
  for (const UniqueFd& events : events_) {
    if (events) loop_.Forget(events.get());
  }
  loop_.Cancel(timer_);
  timer_ = loop_.After(Until(deadline_), [this] {
    timer_ = 0;
    Settle("sync did not finish");
  });
  sync_stale_ = syncing_;
  if (!syncing_) StartSyncChild();
}

void Freezer::StartSyncChild() {
  const pid_t pid = ::fork();
  if (pid == 0) {
    (void)::setsid();
    // A sync that hangs must not keep the host's connections open.
    (void)::syscall(SYS_close_range, 3U, ~0U, 0U);
    machine_.SyncInChild();
    ::_exit(0);
  }
  if (pid < 0) {
    Settle(Error::FromErrno("fork for sync", errno).message());
    return;
  }
  (void)::setpgid(pid, pid);  // by whoever of the two is first: it is signalled as a group
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  syncing_ = true;
  const auto added = processes_.Add(pid, std::move(pidfd), [this](ExitStatus) { OnSyncEnd(); });
  if (!added) Settle(added.error().Wrap("watch sync").message());
}

void Freezer::OnSyncEnd() {
  syncing_ = false;
  if (stage_ != Stage::kSyncing) return;
  if (sync_stale_) {
    sync_stale_ = false;
    StartSyncChild();
  } else {
    Settle({});
  }
}

void Freezer::Settle(std::string detail) {
  const bool stopped = AllStopped() && trouble_.empty();
  const auto took = Since(began_);
  complete_ = stopped && detail.empty();
  if (!stopped) {
    std::string why = trouble_.empty() ? "processes of the sandbox do not stand still" : trouble_;
    detail = detail.empty() ? std::move(why) : std::move(why) + "; " + detail;
  }
  if (!detail.empty()) detail += " (after " + std::to_string(took.count()) + " ms)";
  LeaveStage();
  std::map<WaiterId, OnFrozen> told;
  told.swap(waiters_);
  const FreezeReply reply{stopped, std::move(detail), static_cast<uint32_t>(took.count())};
  for (const auto& [id, on_frozen] : told) on_frozen(reply);
}

void Freezer::LeaveStage() {
  stage_ = Stage::kIdle;
  loop_.Cancel(timer_);
  timer_ = 0;
  for (const UniqueFd& events : events_) {
    if (events) loop_.Forget(events.get());
  }
  events_.clear();
}

Result<void> Freezer::Thaw() {
  if (stage_ != Stage::kIdle) {
    trouble_ = "thawed meanwhile";
    Settle({});
  }
  complete_ = false;
  for (const Cgroup* cgroup : cgroups_) DORMOUSE_TRY(cgroup->SetFrozen(false));
  holding_ = false;
  return {};
}

}  // namespace dormouse::guest
