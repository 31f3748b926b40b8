// The children that the server started, each watched by its pidfd until it has been collected, also
// when nobody is interested any more. On the EventLoop's thread.
#pragma once

#include <functional>
#include <map>

#include "guest-agent/server/event_loop.h"
#include "guest-agent/server/process.h"

namespace dormouse::guest {

class ProcessTable {
 public:
  using OnExit = std::function<void(ExitStatus)>;

  explicit ProcessTable(EventLoop& loop) : loop_(loop) {}
  ~ProcessTable();

  /// `on_exit` is called once, from the loop.
  [[nodiscard]] Result<void> Add(pid_t pid, UniqueFd pidfd, OnExit on_exit);
  /// To the child's process group, while the child runs; afterwards nothing: its number may be
  /// another's.
  void Signal(pid_t pid, int number);
  /// The owner is gone: SIGHUP to the group, SIGKILL 5 s later, then collected in silence.
  void Abandon(pid_t pid);
  /// For PID 1, on SIGCHLD: collects every ended process, the table's own and those it inherited.
  void ReapAll();
  [[nodiscard]] size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    UniqueFd pidfd;
    OnExit on_exit;
    EventLoop::TimerId kill_timer = 0;
  };
  void Collect(pid_t pid);

  EventLoop& loop_;
  std::map<pid_t, Entry> entries_;
};

}  // namespace dormouse::guest
