#include "src/common/kube/controller_loop.h"

#include "src/common/base/log.h"

namespace dormouse::kube {

ControllerLoop::ControllerLoop(ControllerLoopOptions options, WorkQueue& queue,
                               ReconcileFunction reconcile)
    : options_(std::move(options)), queue_(queue), reconcile_(std::move(reconcile)) {
  auto& registry = *options_.metrics;
  const metrics::Labels labels{{"controller", options_.name}};
  const auto result = [&](const char* value) {
    return registry.MakeCounter("controller_runtime_reconcile_total",
                                "Total number of reconciliations per controller.",
                                {{"controller", options_.name}, {"result", value}});
  };
  success_ = result("success");
  error_ = result("error");
  requeue_ = result("requeue");
  requeue_after_ = result("requeue_after");
  errors_ = registry.MakeCounter("controller_runtime_reconcile_errors_total",
                                 "Total number of reconciliation errors per controller.", labels);
  terminal_errors_ = registry.MakeCounter(
      "controller_runtime_terminal_reconcile_errors_total",
      "Total number of terminal reconciliation errors from the reconciler.", labels);
  panics_ = registry.MakeCounter("controller_runtime_reconcile_panics_total",
                                 "Total number of reconciliation panics per controller.", labels);
  seconds_ = registry.MakeHistogram("controller_runtime_reconcile_time_seconds",
                                    "Length of time per reconciliation per controller.",
                                    metrics::ReconcileBuckets(), labels);
  active_ = registry.MakeGauge("controller_runtime_active_workers",
                               "Number of currently used workers per controller.", labels);
  registry
      .MakeGauge("controller_runtime_max_concurrent_reconciles",
                 "Maximum number of concurrent reconciles per controller.", labels)
      .Set(options_.workers);
}

ControllerLoop::~ControllerLoop() {
  Stop();
}

void ControllerLoop::Start() {
  for (int i = 0; i < options_.workers; ++i) workers_.emplace_back([this] { Work(); });
}

bool ControllerLoop::Stop(std::chrono::milliseconds drain) {
  if (workers_.empty()) return true;
  const bool drained = queue_.ShutDownWithDrain(drain);
  for (auto& worker : workers_) worker.join();
  workers_.clear();
  return drained;
}

void ControllerLoop::Work() {
  while (auto key = queue_.Get()) Process(*key);
}

bool ControllerLoop::RunOne() {
  const auto key = queue_.TryGet();
  if (key) Process(*key);
  return key.has_value();
}

void ControllerLoop::Process(const std::string& key) {
  const auto started = std::chrono::steady_clock::now();
  active_.Add(1);
  Result<ReconcileResult> result = ReconcileResult::Done();
  try {
    result = reconcile_(key);
  } catch (const std::exception& exception) {
    panics_.Increment();
    result = Fail(ErrorCode::kInternal, std::string("exception: ") + exception.what());
  }
  active_.Add(-1);
  seconds_.Observe(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
  Settle(key, result);
  queue_.Done(key);
}

void ControllerLoop::Settle(const std::string& key, const Result<ReconcileResult>& result) {
  if (result) {
    if (result->requeue()) {
      requeue_.Increment();
      return queue_.AddRateLimited(key);
    }
    queue_.Forget(key);
    if (const auto after = result->requeue_after()) {
      requeue_after_.Increment();
      return queue_.AddAfter(key, *after);
    }
    return success_.Increment();
  }
  const Error& error = result.error();
  const bool retry = error.IsRetryable();
  // A conflict is how two writers find out about each other, not something for a person.
  const auto level =
      error.code() == ErrorCode::kConflict ? log::Level::kDebug : log::Level::kWarning;
  log::Write(level, "reconcile failed",
             {{"controller", options_.name},
              {"key", key},
              {"code", ErrorCodeName(error.code())},
              {"retry", retry ? "soon" : "slowly"},
              {"error", error.message()}});
  error_.Increment();
  errors_.Increment();
  if (!retry) {
    terminal_errors_.Increment();
    queue_.Forget(key);
    return queue_.AddAfter(key, options_.terminal_retry);
  }
  if (error.retry_after()) return queue_.AddAfter(key, *error.retry_after());
  queue_.AddRateLimited(key);
}

}  // namespace dormouse::kube
