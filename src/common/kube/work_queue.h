// The queue between what changed and who reconciles it (client-go util/workqueue): a key waits once
// however often it is added, is worked on by one worker at a time, and comes back if it was added
// meanwhile.
//
// Thread-safe. Keys are text, mostly "namespace/name" or a UID. Nothing is lost by adding too
// often.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "src/common/base/clock.h"
#include "src/common/base/metrics.h"

namespace dormouse::kube {

/// Low waits until nothing normal does: the thousands of a first listing behind the one that a user
/// just edited. Adding with kNormal lifts a key that waits with kLow.
enum class Priority { kLow, kNormal };

struct WorkQueueOptions {
  std::string name = "default";
  std::chrono::nanoseconds base_delay = std::chrono::milliseconds(5);  ///< times 2^failures ...
  std::chrono::nanoseconds max_delay = std::chrono::minutes(5);        ///< ... up to this ...
  double jitter = 0.2;                                                 ///< ... give or take 20 %
  uint64_t seed = std::random_device{}();
  const Clock* clock = &Clock::System();
  metrics::Registry* metrics = &metrics::Registry::Default();
};

class WorkQueue {
 public:
  explicit WorkQueue(WorkQueueOptions options = {});
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  void Add(const std::string& key, Priority priority = Priority::kNormal);
  /// Not before `delay` has passed; of several delays the earliest counts. Add() is not held back
  /// by it.
  void AddAfter(const std::string& key, std::chrono::nanoseconds delay);
  /// AddAfter with the key's own back-off, which grows with each call until Forget.
  void AddRateLimited(const std::string& key);
  void Forget(const std::string& key);
  [[nodiscard]] int Failures(const std::string& key) const;

  /// The next key; waits for one. Nothing after a shutdown. The caller owes a Done for each key.
  [[nodiscard]] std::optional<std::string> Get();
  /// The same without waiting.
  [[nodiscard]] std::optional<std::string> TryGet();
  void Done(const std::string& key);

  /// What waits is forgotten, nothing new is taken, workers that wait are released: whatever is
  /// level- triggered finds it again.
  void ShutDown();
  /// ShutDown, then waits until no key is worked on; false when that took longer than `timeout`.
  bool ShutDownWithDrain(std::chrono::milliseconds timeout);

  /// How many keys wait, without the delayed ones.
  [[nodiscard]] std::size_t Depth() const;
  [[nodiscard]] std::size_t DelayedCount() const;
  /// Brings the gauges of unfinished work up to date, for Registry::BeforeText.
  void UpdateMetrics();
  [[nodiscard]] const std::string& name() const { return options_.name; }

 private:
  struct Waiting {
    Priority priority;
    MonotonicTime since;
  };
  void AddLocked(const std::string& key, Priority priority);
  void EnqueueLocked(const std::string& key, const Waiting& waiting);
  void MoveReadyLocked(MonotonicTime now);
  std::optional<std::string> PopLocked(MonotonicTime now);
  void SetDepthLocked();
  std::chrono::nanoseconds NextDelayLocked(const std::string& key);

  WorkQueueOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  std::condition_variable drained_;
  std::deque<std::string> normal_;
  std::deque<std::string> low_;
  std::unordered_map<std::string, Waiting> dirty_;  ///< waits, or must come back after Done
  std::unordered_map<std::string, MonotonicTime> processing_;
  std::unordered_map<std::string, MonotonicTime> delayed_;
  std::multimap<MonotonicTime, std::string> delays_;  ///< delayed_ by time
  std::unordered_map<std::string, int> failures_;
  std::mt19937_64 random_;
  bool shut_down_ = false;

  metrics::Gauge depth_;
  metrics::Gauge unfinished_;
  metrics::Gauge longest_;
  metrics::Counter adds_;
  metrics::Counter retries_;
  metrics::Histogram queue_seconds_;
  metrics::Histogram work_seconds_;
};

}  // namespace dormouse::kube
