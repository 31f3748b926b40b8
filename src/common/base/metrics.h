// Counters, gauges and histograms, and their text form (Prometheus exposition format 0.0.4).
//
// Thread-safe throughout; a sample costs an atomic operation (a histogram: a short lock). Handles
// are two words, copied freely, and valid for as long as their registry lives. Making a metric
// whose name and labels exist already returns the same one, so a label set can be made with 0
// before its first use. Wrong names or labels, or one name with two types, are programming errors
// and abort.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace dormouse::metrics {

using Labels = std::map<std::string, std::string>;

/// Only goes up. A default-constructed handle of any kind swallows its samples.
class Counter {
 public:
  Counter() = default;
  void Increment(double by = 1) const;
  [[nodiscard]] double Value() const;

 private:
  friend class Registry;
  explicit Counter(void* cell) : cell_(cell) {}
  void* cell_ = nullptr;
};

class Gauge {
 public:
  Gauge() = default;
  void Set(double value) const;
  void Add(double by) const;
  [[nodiscard]] double Value() const;

 private:
  friend class Registry;
  explicit Gauge(void* cell) : cell_(cell) {}
  void* cell_ = nullptr;
};

class Histogram {
 public:
  Histogram() = default;
  void Observe(double value) const;
  [[nodiscard]] double Sum() const;
  [[nodiscard]] double Count() const;

 private:
  friend class Registry;
  explicit Histogram(void* cell) : cell_(cell) {}
  void* cell_ = nullptr;
};

/// Upper bounds for seconds, from 5 ms to 60 s: what controller-runtime uses for a reconcile.
[[nodiscard]] const std::vector<double>& ReconcileBuckets();
/// 1e-8 · 10^n, 12 of them: what client-go uses for a work queue.
[[nodiscard]] const std::vector<double>& QueueBuckets();

class Registry {
 public:
  Registry();
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  [[nodiscard]] Counter MakeCounter(const std::string& name, const std::string& help,
                                    const Labels& labels = {});
  [[nodiscard]] Gauge MakeGauge(const std::string& name, const std::string& help,
                                const Labels& labels = {});
  [[nodiscard]] Histogram MakeHistogram(const std::string& name, const std::string& help,
                                        const std::vector<double>& upper_bounds,
                                        const Labels& labels = {});
  /// Forgets one label set of a metric, e.g. of a sandbox that is gone. Handles to it must not be
  /// used again.
  void Remove(const std::string& name, const Labels& labels);

  /// Called before each Text(), to bring gauges up to date. For the life of the registry.
  void BeforeText(std::function<void()> refresh);
  /// Everything, and process_* of this process (/proc/self).
  [[nodiscard]] std::string Text() const;

  /// The one that /metrics of this process shows.
  static Registry& Default();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dormouse::metrics
