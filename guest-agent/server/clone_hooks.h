// The hook directory of a clone: programs of the guest that learn that they were cloned, run one
// after the other in the order of their names while everything else still stands still.
//
// Each runs as root with DORMOUSE_HOSTNAME and DORMOUSE_MACHINE_ID in its environment, in a cgroup
// of its own, for a limited time; what it leaves running is killed. What goes wrong is told and
// stops nothing. On the EventLoop's thread.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "guest-agent/server/cgroup.h"
#include "guest-agent/server/event_loop.h"
#include "guest-agent/server/machine.h"
#include "guest-agent/server/process_table.h"
#include "src/common/guest/messages.h"

namespace dormouse::guest {

struct HookOptions {
  std::string dir;                  ///< empty, or absent on disk: no hooks
  std::chrono::milliseconds limit;  ///< for each
};

/// The executable files of `dir` by name; at most 16, none that starts with a dot.
[[nodiscard]] std::vector<std::string> ListHooks(const std::string& dir);

class CloneHooks {
 public:
  /// What failed, a line each.
  using OnDone = std::function<void(std::vector<std::string> notes)>;

  CloneHooks(EventLoop& loop, ProcessTable& processes, Machine& machine, Cgroup cgroup,
             HookOptions options);
  ~CloneHooks();
  CloneHooks(const CloneHooks&) = delete;
  CloneHooks& operator=(const CloneHooks&) = delete;

  /// One run at a time. `on_done` is called once, perhaps before this returns; all hooks together
  /// get 10 s, and those that are not reached are told.
  void Run(const Identity& identity, OnDone on_done);

 private:
  void Next();
  [[nodiscard]] Result<void> Start(const std::string& hook);
  void ReadOutput();
  void OnExit(ExitStatus status);
  void OnLimit();
  void Leave(std::string complaint);

  EventLoop& loop_;
  ProcessTable& processes_;
  Machine& machine_;
  const Cgroup cgroup_;
  const HookOptions options_;
  Identity identity_;
  OnDone on_done_;
  std::deque<std::string> left_;
  std::vector<std::string> notes_;
  std::chrono::steady_clock::time_point deadline_{};
  std::chrono::milliseconds allowed_{0};  ///< for the current one
  std::string current_;
  pid_t pid_ = -1;
  UniqueFd out_;
  size_t console_left_ = 0;
  EventLoop::TimerId timer_ = 0;
};

}  // namespace dormouse::guest
