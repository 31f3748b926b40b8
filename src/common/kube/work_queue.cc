#include "src/common/kube/work_queue.h"

#include <algorithm>
#include <cmath>

namespace dormouse::kube {
namespace {

double Seconds(std::chrono::nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

WorkQueue::WorkQueue(WorkQueueOptions options)
    : options_(std::move(options)), random_(options_.seed) {
  auto& registry = *options_.metrics;
  const metrics::Labels labels{{"name", options_.name}, {"controller", options_.name}};
  depth_ = registry.MakeGauge("workqueue_depth", "Current depth of workqueue.", labels);
  adds_ = registry.MakeCounter("workqueue_adds_total", "Total number of adds handled by workqueue.",
                               labels);
  retries_ = registry.MakeCounter("workqueue_retries_total",
                                  "Total number of retries handled by workqueue.", labels);
  queue_seconds_ = registry.MakeHistogram(
      "workqueue_queue_duration_seconds",
      "How long in seconds an item stays in workqueue before being requested.",
      metrics::QueueBuckets(), labels);
  work_seconds_ =
      registry.MakeHistogram("workqueue_work_duration_seconds",
                             "How long in seconds processing an item from workqueue takes.",
                             metrics::QueueBuckets(), labels);
  unfinished_ = registry.MakeGauge(
      "workqueue_unfinished_work_seconds",
      "How many seconds of work is in progress and hasn't been observed by work_duration.", labels);
  longest_ = registry.MakeGauge("workqueue_longest_running_processor_seconds",
                                "How many seconds has the longest running processor been running.",
                                labels);
}

WorkQueue::~WorkQueue() = default;

void WorkQueue::Add(const std::string& key, Priority priority) {
  std::lock_guard lock(mutex_);
  AddLocked(key, priority);
}

void WorkQueue::AddLocked(const std::string& key, Priority priority) {
  if (shut_down_) return;
  const auto [it, added] = dirty_.try_emplace(key, Waiting{priority, options_.clock->Now()});
  if (!added) {
    const bool lifted = priority == Priority::kNormal && it->second.priority == Priority::kLow;
    if (!lifted) return;
    it->second.priority = Priority::kNormal;
    // Its place among the low ones stays behind; PopLocked passes over it.
    if (!processing_.contains(key)) normal_.push_back(key);
    ready_.notify_one();
    return;
  }
  adds_.Increment();
  if (!processing_.contains(key)) EnqueueLocked(key, it->second);
  SetDepthLocked();
}

void WorkQueue::EnqueueLocked(const std::string& key, const Waiting& waiting) {
  (waiting.priority == Priority::kNormal ? normal_ : low_).push_back(key);
  ready_.notify_one();
}

void WorkQueue::AddAfter(const std::string& key, std::chrono::nanoseconds delay) {
  std::lock_guard lock(mutex_);
  if (delay.count() <= 0) return AddLocked(key, Priority::kNormal);
  if (shut_down_) return;
  const MonotonicTime at = options_.clock->Now() + delay;
  if (auto it = delayed_.find(key); it != delayed_.end()) {
    if (it->second <= at) return;
    const auto [first, last] = delays_.equal_range(it->second);
    delays_.erase(
        std::find_if(first, last, [&key](const auto& entry) { return entry.second == key; }));
  }
  delayed_[key] = at;
  delays_.emplace(at, key);
  // Whoever waits may be waiting for a later time.
  ready_.notify_one();
}

void WorkQueue::AddRateLimited(const std::string& key) {
  std::chrono::nanoseconds delay;
  {
    std::lock_guard lock(mutex_);
    delay = NextDelayLocked(key);
  }
  retries_.Increment();
  AddAfter(key, delay);
}

std::chrono::nanoseconds WorkQueue::NextDelayLocked(const std::string& key) {
  const int failures = failures_[key]++;
  const double base = Seconds(options_.base_delay) * std::pow(2.0, std::min(failures, 60));
  const double spread =
      std::uniform_real_distribution<double>(1 - options_.jitter, 1 + options_.jitter)(random_);
  const double delay = std::min(base, Seconds(options_.max_delay)) * spread;
  return std::chrono::nanoseconds(static_cast<int64_t>(delay * 1e9));
}

void WorkQueue::Forget(const std::string& key) {
  std::lock_guard lock(mutex_);
  failures_.erase(key);
}

int WorkQueue::Failures(const std::string& key) const {
  std::lock_guard lock(mutex_);
  const auto it = failures_.find(key);
  return it == failures_.end() ? 0 : it->second;
}

void WorkQueue::MoveReadyLocked(MonotonicTime now) {
  while (!delays_.empty() && delays_.begin()->first <= now) {
    const std::string key = std::move(delays_.begin()->second);
    delays_.erase(delays_.begin());
    delayed_.erase(key);
    AddLocked(key, Priority::kNormal);
  }
}

std::optional<std::string> WorkQueue::PopLocked(MonotonicTime now) {
  for (auto* waiting : {&normal_, &low_}) {
    while (!waiting->empty()) {
      std::string key = std::move(waiting->front());
      waiting->pop_front();
      const auto it = dirty_.find(key);
      const bool current = it != dirty_.end() && !processing_.contains(key) &&
                           (it->second.priority == Priority::kLow) == (waiting == &low_);
      if (!current) continue;
      queue_seconds_.Observe(Seconds(now - it->second.since));
      dirty_.erase(it);
      processing_[key] = now;
      SetDepthLocked();
      return key;
    }
  }
  return std::nullopt;
}

std::optional<std::string> WorkQueue::TryGet() {
  std::lock_guard lock(mutex_);
  const MonotonicTime now = options_.clock->Now();
  MoveReadyLocked(now);
  return PopLocked(now);
}

std::optional<std::string> WorkQueue::Get() {
  std::unique_lock lock(mutex_);
  while (true) {
    const MonotonicTime now = options_.clock->Now();
    MoveReadyLocked(now);
    if (auto key = PopLocked(now)) {
      // One notify may have stood for several keys that became ready at once.
      if (!normal_.empty() || !low_.empty() || !delays_.empty()) ready_.notify_one();
      return key;
    }
    if (shut_down_) return std::nullopt;
    if (delays_.empty()) {
      ready_.wait(lock);
    } else {
      ready_.wait_for(lock, delays_.begin()->first - now);
    }
  }
}

void WorkQueue::Done(const std::string& key) {
  std::lock_guard lock(mutex_);
  const auto it = processing_.find(key);
  if (it == processing_.end()) return;
  work_seconds_.Observe(Seconds(options_.clock->Now() - it->second));
  processing_.erase(it);
  if (auto dirty = dirty_.find(key); dirty != dirty_.end()) {
    if (shut_down_) {
      dirty_.erase(dirty);
    } else {
      EnqueueLocked(key, dirty->second);
    }
    SetDepthLocked();
  }
  if (processing_.empty()) drained_.notify_all();
}

void WorkQueue::ShutDown() {
  std::lock_guard lock(mutex_);
  shut_down_ = true;
  normal_.clear();
  low_.clear();
  dirty_.clear();
  delayed_.clear();
  delays_.clear();
  SetDepthLocked();
  ready_.notify_all();
}

bool WorkQueue::ShutDownWithDrain(std::chrono::milliseconds timeout) {
  ShutDown();
  std::unique_lock lock(mutex_);
  return drained_.wait_for(lock, timeout, [this] { return processing_.empty(); });
}

std::size_t WorkQueue::Depth() const {
  std::lock_guard lock(mutex_);
  return dirty_.size();
}

std::size_t WorkQueue::DelayedCount() const {
  std::lock_guard lock(mutex_);
  return delayed_.size();
}

void WorkQueue::UpdateMetrics() {
  std::lock_guard lock(mutex_);
  const MonotonicTime now = options_.clock->Now();
  double total = 0;
  double longest = 0;
  for (const auto& [key, since] : processing_) {
    total += Seconds(now - since);
    longest = std::max(longest, Seconds(now - since));
  }
  unfinished_.Set(total);
  longest_.Set(longest);
}

void WorkQueue::SetDepthLocked() {
  depth_.Set(static_cast<double>(dirty_.size()));
}

}  // namespace dormouse::kube
