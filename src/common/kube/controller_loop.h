// Workers that take keys from a queue and reconcile them, with controller-runtime's rules and
// metric names.
//
// One key is never reconciled by two workers at once (the queue sees to it). A failure is tried
// again by the queue's back-off, or after the time the server asked for (Error::retry_after); one
// that no quick retry can help (Error::IsRetryable) is tried again at a change of the object, and
// slowly without one: what the kernel, a disk or an admission policy refuses may be put right where
// no object tells of it. An exception counts as a failure.
//
// Start and Stop are called by the owner's thread.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "src/common/base/metrics.h"
#include "src/common/base/result.h"
#include "src/common/kube/work_queue.h"

namespace dormouse::kube {

/// What a reconcile that did not fail wants next.
class ReconcileResult {
 public:
  /// Nothing until the object changes.
  static ReconcileResult Done() { return ReconcileResult(); }
  /// Once more after `delay`, whatever happens; the back-off starts over.
  static ReconcileResult RequeueAfter(std::chrono::nanoseconds delay) {
    return ReconcileResult(delay);
  }
  /// Once more with back-off, without being an error.
  static ReconcileResult Requeue() { return ReconcileResult(std::chrono::nanoseconds(-1)); }

  [[nodiscard]] bool requeue() const { return after_ && after_->count() < 0; }
  [[nodiscard]] std::optional<std::chrono::nanoseconds> requeue_after() const {
    return requeue() ? std::nullopt : after_;
  }

 private:
  ReconcileResult() = default;
  explicit ReconcileResult(std::chrono::nanoseconds after) : after_(after) {}
  std::optional<std::chrono::nanoseconds> after_;
};

using ReconcileFunction = std::function<Result<ReconcileResult>(const std::string& key)>;

struct ControllerLoopOptions {
  std::string name{};  ///< label "controller" of the metrics
  int workers = 1;
  std::chrono::seconds terminal_retry{60};  ///< after a failure that is not retryable
  metrics::Registry* metrics = &metrics::Registry::Default();
};

class ControllerLoop {
 public:
  /// `queue` must outlive the loop.
  ControllerLoop(ControllerLoopOptions options, WorkQueue& queue, ReconcileFunction reconcile);
  ~ControllerLoop();
  ControllerLoop(const ControllerLoop&) = delete;
  ControllerLoop& operator=(const ControllerLoop&) = delete;

  /// Starts the workers: after the caches have synced, and on a leader.
  void Start();
  /// Shuts the queue down, lets what runs finish, joins. False when it took longer than `drain`:
  /// the workers are joined then as well, once their reconcile returns.
  bool Stop(std::chrono::milliseconds drain = std::chrono::seconds(30));

  /// Reconciles the next key, if any, on the caller's thread: for tests. False when none waited.
  bool RunOne();

 private:
  void Process(const std::string& key);
  void Settle(const std::string& key, const Result<ReconcileResult>& result);
  void Work();

  ControllerLoopOptions options_;
  WorkQueue& queue_;
  ReconcileFunction reconcile_;
  std::vector<std::thread> workers_;

  metrics::Counter success_, error_, requeue_, requeue_after_;
  metrics::Counter errors_, terminal_errors_, panics_;
  metrics::Histogram seconds_;
  metrics::Gauge active_;
};

}  // namespace dormouse::kube
