// What happened, for `kubectl describe`: events.k8s.io/v1, with client-go's aggregation
// (tools/events).
//
// Thread-safe. Record never blocks and never fails: it hands over to a thread, and drops (counted)
// when 1,000 wait. The same thing happening again within 6 minutes becomes a series of one Event
// instead of a new one: written at the second time, then each 30 min, and at the end.
#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "src/common/base/clock.h"
#include "src/common/base/metrics.h"
#include "src/common/kube/client.h"
#include "src/common/kube/types.h"

namespace dormouse::kube {

/// A core/v1 ObjectReference.
struct EventSubject {
  std::string api_version{};
  std::string kind{};
  std::string ns{};  ///< empty for cluster-scoped objects: their Events go to "default"
  std::string name{};
  std::string uid{};
  auto operator<=>(const EventSubject&) const = default;
};

enum class EventType { kNormal, kWarning };

struct EventRecorderOptions {
  std::string controller{};                     ///< "dormouse.dev/controller"
  std::string instance{};                       ///< pod or node name
  std::map<std::string, std::string> labels{};  ///< of each Event
  std::size_t queue_limit = 1000;
  const Clock* clock = &Clock::System();
  metrics::Registry* metrics = &metrics::Registry::Default();
};

class EventRecorder {
 public:
  EventRecorder(std::shared_ptr<HttpTransport> transport, EventRecorderOptions options);
  /// Sends what waits for up to 2 s, then stops.
  ~EventRecorder();
  EventRecorder(const EventRecorder&) = delete;
  EventRecorder& operator=(const EventRecorder&) = delete;

  /// `reason` and `action` are CamelCase words (128 characters), `note` is for people (cut at 1
  /// kB).
  void Record(const EventSubject& regarding, EventType type, std::string reason, std::string action,
              std::string note, const std::optional<EventSubject>& related = std::nullopt);

  void Start();
  /// Writes what waits, and what series are due, on the caller's thread: for tests, and at the end.
  void Flush();

 private:
  struct Key;
  struct Pending;
  struct Series;
  struct State;
  void Run(const std::stop_token& stop);
  void Drain(MonotonicTime until);
  /// False when the server did not answer: to be tried again.
  bool WriteOne(const Pending& pending);
  bool WriteSeries(Series& series);
  void TendSeries();

  Client client_;
  EventRecorderOptions options_;
  std::unique_ptr<State> state_;
  std::jthread thread_;
};

}  // namespace dormouse::kube
