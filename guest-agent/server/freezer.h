// Brings a sandbox's processes to a stand around a snapshot: cgroup.freeze on its cgroups, then
// everything written back (Documentation/admin-guide/cgroup-v2.rst, "cgroup.freeze").
//
// On the EventLoop's thread, which never waits here: the kernel tells by cgroup.events when the
// last process stands still, and sync() runs in a child.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <vector>

#include "guest-agent/server/cgroup.h"
#include "guest-agent/server/event_loop.h"
#include "guest-agent/server/machine.h"
#include "guest-agent/server/process_table.h"
#include "src/common/guest/messages.h"

namespace dormouse::guest {

class Freezer {
 public:
  using OnFrozen = std::function<void(FreezeReply)>;
  using WaiterId = uint64_t;  ///< 0 is none

  /// The cgroups must outlive it. `holding`: as a stand-in woke.
  Freezer(EventLoop& loop, ProcessTable& processes, Machine& machine,
          std::vector<const Cgroup*> cgroups, bool holding);
  ~Freezer();
  Freezer(const Freezer&) = delete;
  Freezer& operator=(const Freezer&) = delete;

  /// From the first Freeze until a Thaw succeeds, whatever the freeze came to.
  [[nodiscard]] bool holding() const { return holding_; }
  /// `on_frozen` is called once, at the latest after `limit` (of whoever asked first); perhaps
  /// before this returns, which is then 0. Half of the limit is for the processes, the rest for the
  /// sync.
  [[nodiscard]] WaiterId Freeze(std::chrono::milliseconds limit, OnFrozen on_frozen);
  void Forget(WaiterId id) { waiters_.erase(id); }
  /// Lets all go on. A freeze under way is answered: not frozen. After an error it still holds.
  [[nodiscard]] Result<void> Thaw();
  /// Told when it begins to hold.
  void SetOnFreeze(std::function<void()> on_freeze) { on_freeze_ = std::move(on_freeze); }

 private:
  enum class Stage { kIdle, kStopping, kSyncing };
  using Instant = std::chrono::steady_clock::time_point;

  void BeginStopping();
  void CheckStopped();
  [[nodiscard]] bool AllStopped() const;
  void BeginSync();
  void StartSyncChild();
  void OnSyncEnd();
  void Settle(std::string detail);
  void LeaveStage();

  EventLoop& loop_;
  ProcessTable& processes_;
  Machine& machine_;
  const std::vector<const Cgroup*> cgroups_;
  std::function<void()> on_freeze_;
  bool holding_ = false;
  bool complete_ = false;  ///< stands still and is written back: nothing to do for a second freeze
  Stage stage_ = Stage::kIdle;
  Instant began_{};
  Instant deadline_{};
  std::string trouble_;
  std::vector<UniqueFd> events_;
  EventLoop::TimerId timer_ = 0;
  bool syncing_ = false;     ///< a child is at it
  bool sync_stale_ = false;  ///< ... since before this freeze
  std::map<WaiterId, OnFrozen> waiters_;
  WaiterId next_waiter_ = 1;
};

}  // namespace dormouse::guest
