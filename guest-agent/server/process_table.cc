#include "guest-agent/server/process_table.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

namespace dormouse::guest {
namespace {
constexpr std::chrono::milliseconds kHangupGrace{5'000};
}  // namespace

ProcessTable::~ProcessTable() {
  for (auto& [pid, entry] : entries_) {
    loop_.Cancel(entry.kill_timer);
    loop_.Forget(entry.pidfd.get());
    // Whoever destroys the table ends what it ran; in PID 1 that never happens.
    (void)::kill(-pid, SIGKILL);
    (void)::waitpid(pid, nullptr, 0);
  }
}

Result<void> ProcessTable::Add(pid_t pid, UniqueFd pidfd, OnExit on_exit) {
  const int fd = pidfd.get();
  entries_[pid] = {std::move(pidfd), std::move(on_exit), 0};
  return loop_.Watch(fd, EPOLLIN, [this, pid](uint32_t) { Collect(pid); });
}

void ProcessTable::Signal(pid_t pid, int number) {
  if (entries_.contains(pid)) (void)::kill(-pid, number);
}

void ProcessTable::Abandon(pid_t pid) {
  const auto found = entries_.find(pid);
  if (found == entries_.end()) return;
  found->second.on_exit = nullptr;
  (void)::kill(-pid, SIGHUP);
  (void)::kill(-pid, SIGCONT);
  found->second.kill_timer = loop_.After(kHangupGrace, [this, pid] {
    const auto still = entries_.find(pid);
    if (still == entries_.end()) return;
    still->second.kill_timer = 0;
    (void)::kill(-pid, SIGKILL);
  });
}

void ProcessTable::Collect(pid_t pid) {
  const auto found = entries_.find(pid);
  if (found == entries_.end()) return;
  const auto status = Reap(pid);
  if (!status) return;
  Entry entry = std::move(found->second);
  entries_.erase(found);
  loop_.Cancel(entry.kill_timer);
  loop_.Forget(entry.pidfd.get());
  if (entry.on_exit) entry.on_exit(*status);
}

void ProcessTable::ReapAll() {
  for (;;) {
    siginfo_t info{};
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return;
    if (entries_.contains(info.si_pid)) {
      Collect(info.si_pid);
    } else {
      (void)::waitpid(info.si_pid, nullptr, WNOHANG);
    }
  }
}

}  // namespace dormouse::guest
