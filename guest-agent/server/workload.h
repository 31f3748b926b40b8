// The one program that a sandbox is for: started once per id, in a cgroup of its own, its output in
// a ring, its end kept until somebody asks. On the EventLoop's thread.
#pragma once

#include <functional>
#include <map>

#include "guest-agent/server/cgroup.h"
#include "guest-agent/server/event_loop.h"
#include "guest-agent/server/machine.h"
#include "guest-agent/server/output_ring.h"
#include "guest-agent/server/process_table.h"
#include "src/common/guest/messages.h"

namespace dormouse::guest {

class Workload {
 public:
  using ObserverId = uint64_t;

  /// `known`: Machine::Recall; its processes are not there any more.
  Workload(EventLoop& loop, ProcessTable& processes, Machine& machine, Cgroup cgroup,
           size_t log_bytes, WorkloadStatus known);
  ~Workload();

  /// See StartWorkloadRequest. A program that is not there, or none, has ended at once, as in a
  /// shell: with 127 or 126, and why in its log. kInvalid: no such user, or working directory.
  [[nodiscard]] Result<void> Start(const StartWorkloadRequest& request,
                                   const ConfigureRequest& defaults);
  /// SIGTERM, and SIGKILL to its whole cgroup after the grace. Nothing to do is fine.
  void Stop(std::chrono::milliseconds grace);
  [[nodiscard]] const WorkloadStatus& status() const { return status_; }
  [[nodiscard]] const OutputRing& log() const { return log_; }
  [[nodiscard]] const Cgroup& cgroup() const { return cgroup_; }

  /// `observer` is called, from the loop, after output came or the state changed.
  [[nodiscard]] ObserverId Observe(std::function<void()> observer);
  void Forget(ObserverId id) { observers_.erase(id); }

 private:
  void ReadOutput();
  void OnExit(ExitStatus status);
  void NoteNotRun(const Error& error);
  void Notify();

  EventLoop& loop_;
  ProcessTable& processes_;
  Machine& machine_;
  Cgroup cgroup_;
  OutputRing log_;
  WorkloadStatus status_;
  bool console_ = false;
  pid_t pid_ = -1;
  UniqueFd out_;
  EventLoop::TimerId kill_timer_ = 0;
  std::map<ObserverId, std::function<void()>> observers_;
  ObserverId next_observer_ = 1;
};

}  // namespace dormouse::guest
