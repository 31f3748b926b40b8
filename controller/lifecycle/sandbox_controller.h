// Reconciles sandboxes: places those that have no node, and ends those that are being deleted.
//
// Reconcile runs on any number of workers, each key on one at a time (the queue sees to it). It
// acts on the cache only where a stale one does no harm (every write names the version that was
// checked), reads live before it undoes anything, and waits for the cache to show its own last
// write.
//
// What it does by the clock (shutdownTime, ttlAfterFinished) it does on a live read, too. kClockKey
// looks each second whether the wall clock was set.
//
// The order for a new sandbox: finalizer, then node name, Scheduled and phase in one write. A
// controller that dies in between leaves a finalizer on a sandbox without a node, which the next
// one simply places, or releases when it is deleted.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "controller/lifecycle/next_step.h"
#include "controller/lifecycle/sandbox_api.h"
#include "controller/nodes/node_health.h"
#include "controller/placement/scheduler.h"
#include "controller/stores.h"
#include "src/common/kube/controller_loop.h"
#include "src/common/kube/own_writes.h"
#include "src/common/kube/work_queue.h"

namespace dormouse::controller {

class SandboxController {
 public:
  struct Options {
    /// A waiting sandbox whose reason stays and whose message changes is written at most so often.
    std::chrono::nanoseconds message_period = std::chrono::seconds(10);
    /// How long the cache may take to show our own write before the key is looked at again.
    std::chrono::nanoseconds cache_patience = std::chrono::milliseconds(200);
  };

  /// All must outlive it. Adds its indexes and subscribes to `store`: before its reflector starts.
  SandboxController(SandboxStore& store, Scheduler& scheduler, NodeHealth& health, SandboxApi& api,
                    kube::WorkQueue& queue, const Clock& clock, Options options);

  /// `key` is "namespace/name", kRetryKey, or kClockKey.
  Result<kube::ReconcileResult> Reconcile(const std::string& key);

 private:
  using Ptr = Scheduler::SandboxPtr;
  using Outcome = Result<kube::ReconcileResult>;

  void OnChange(const SandboxStore::Change& change);
  Outcome RetryWaiting();
  Outcome PlaceIt(const Ptr& sandbox);
  Outcome AssignTo(const api::Sandbox& sandbox, const std::string& node);
  Outcome ReportWaiting(const api::Sandbox& sandbox, const Placement& placement);
  Outcome ClaimAgain(const api::Sandbox& sandbox);
  Outcome MarkLost(const api::Sandbox& sandbox);
  Outcome Act(const Ptr& sandbox, Step step);
  /// Steps that undo or end something: on a live read that asks for the same step.
  Outcome ActLive(const api::Sandbox& cached, Step step);
  Outcome ActInTime(const api::Sandbox& live, const Decision& decision);
  Outcome LookAtClock();
  Outcome TakeNodeAway(const api::Sandbox& live, Step step);

  [[nodiscard]] NodeState StateOf(const api::Sandbox& sandbox) const;

  SandboxStore& store_;
  Scheduler& scheduler_;
  NodeHealth& health_;
  SandboxApi& api_;
  kube::WorkQueue& queue_;
  const Clock& clock_;
  const Options options_;

  kube::OwnWrites<api::Sandbox> own_writes_;
  /// Of the wall clock to the other, when it was last looked at; of kClockKey alone.
  std::optional<std::chrono::nanoseconds> clock_ahead_;
  std::mutex mutex_;
  std::unordered_map<std::string, MonotonicTime>
      reported_;  ///< when a waiting one was last written
};

}  // namespace dormouse::controller
