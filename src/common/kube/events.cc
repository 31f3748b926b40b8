#include "src/common/kube/events.h"

#include <condition_variable>
#include <cstdio>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "src/common/base/json_text.h"
#include "src/common/base/log.h"
#include "src/common/base/time.h"
#include "src/common/kube/waiter.h"

namespace dormouse::kube {
namespace {

using nlohmann::json;

// client-go tools/events/event_broadcaster.go.
constexpr auto kSeriesEnd = std::chrono::minutes(6);
constexpr auto kSeriesRefresh = std::chrono::minutes(30);
constexpr auto kTend = std::chrono::seconds(60);
constexpr int kTries = 12;
// The work that an Event tells of often has more to write, for which somebody waits.
constexpr auto kLinger = std::chrono::milliseconds(100);
constexpr auto kRetryPause = std::chrono::seconds(10);
constexpr auto kLastFlush = std::chrono::seconds(2);
constexpr std::size_t kMaxNoteBytes = 1024;
constexpr std::size_t kMaxWordBytes = 128;

/// At most `limit` bytes, cut between UTF-8 characters.
std::string Cut(std::string text, std::size_t limit) {
  if (text.size() <= limit) return text;
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) --limit;
  text.resize(limit);
  return text;
}

json ReferenceOf(const EventSubject& subject) {
  json reference{
      {"apiVersion", subject.api_version}, {"kind", subject.kind}, {"name", subject.name}};
  if (!subject.ns.empty()) reference["namespace"] = subject.ns;
  if (!subject.uid.empty()) reference["uid"] = subject.uid;
  return reference;
}

}  // namespace

struct EventRecorder::Key {
  EventSubject regarding;
  EventType type{};
  std::string reason;
  std::string action;
  std::string note;
  std::optional<EventSubject> related;

  [[nodiscard]] bool operator<(const Key& other) const {
    const auto tie = [](const Key& key) {
      return std::tie(key.regarding, key.type, key.reason, key.action, key.note, key.related);
    };
    return tie(*this) < tie(other);
  }
};

/// Something to tell, in one try or several.
struct EventRecorder::Pending {
  Key key;
  WallTime at;
  int tries = 0;
};

/// What was told of a key within the last minutes.
struct EventRecorder::Series {
  ObjectKey event;  ///< the Event's own name
  int count = 1;
  int written = 1;  ///< the count the server has
  WallTime last{};
  MonotonicTime last_seen{};
  MonotonicTime last_written{};
};

struct EventRecorder::State {
  std::mutex mutex;
  std::condition_variable_any changed;
  std::deque<Pending> queue;
  std::mutex writing;  ///< one writer: the thread, or a Flush
  std::map<Key, Series> series;
  uint64_t made = 0;
  metrics::Counter dropped;
  metrics::Counter failed;
};

EventRecorder::EventRecorder(std::shared_ptr<HttpTransport> transport, EventRecorderOptions options)
    : client_(std::move(transport), ClientOptions{.field_manager = options.controller,
                                                  .timeout = std::chrono::seconds(10),
                                                  .clock = options.clock}),
      options_(std::move(options)),
      state_(std::make_unique<State>()) {
  state_->dropped = options_.metrics->MakeCounter("dormouse_events_dropped_total",
                                                  "Events that were dropped as too many waited.");
  state_->failed = options_.metrics->MakeCounter("dormouse_events_failed_total",
                                                 "Events that the API server did not take.");
}

EventRecorder::~EventRecorder() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

void EventRecorder::Record(const EventSubject& regarding, EventType type, std::string reason,
                           std::string action, std::string note,
                           const std::optional<EventSubject>& related) {
  Pending pending{
      {regarding, type, Cut(std::move(reason), kMaxWordBytes),
       Cut(std::move(action), kMaxWordBytes), Cut(std::move(note), kMaxNoteBytes), related},
      options_.clock->WallNow()};
  {
    std::lock_guard lock(state_->mutex);
    if (state_->queue.size() >= options_.queue_limit) {
      state_->dropped.Increment();
      return;
    }
    state_->queue.push_back(std::move(pending));
  }
  state_->changed.notify_one();
}

void EventRecorder::Start() {
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

void EventRecorder::Run(const std::stop_token& stop) {
  MonotonicTime tended = options_.clock->Now();
  while (!stop.stop_requested()) {
    std::optional<Pending> next;
    {
      std::unique_lock lock(state_->mutex);
      if (state_->queue.empty() &&
          state_->changed.wait_for(lock, stop, kTend, [this] { return !state_->queue.empty(); })) {
        state_->changed.wait_for(lock, stop, kLinger, [] { return false; });
      }
      if (!state_->queue.empty() && !stop.stop_requested()) {
        next = std::move(state_->queue.front());
        state_->queue.pop_front();
      }
    }
    if (next && !WriteOne(*next) && ++next->tries < kTries) {
      {
        std::lock_guard lock(state_->mutex);
        state_->queue.push_front(std::move(*next));
      }
      Waiter::System().Wait(kRetryPause, stop);
    }
    if (options_.clock->Now() - tended >= kTend) {
      tended = options_.clock->Now();
      TendSeries();
    }
  }
  Drain(options_.clock->Now() + kLastFlush);
}

void EventRecorder::Flush() {
  Drain(MonotonicTime::max());
  TendSeries();
}

void EventRecorder::Drain(MonotonicTime until) {
  while (options_.clock->Now() < until) {
    std::optional<Pending> next;
    {
      std::lock_guard lock(state_->mutex);
      if (state_->queue.empty()) return;
      next = std::move(state_->queue.front());
      state_->queue.pop_front();
    }
    if (!WriteOne(*next)) state_->failed.Increment();
  }
}

bool EventRecorder::WriteOne(const Pending& pending) {
  std::lock_guard lock(state_->writing);
  const MonotonicTime now = options_.clock->Now();
  auto known = state_->series.find(pending.key);
  if (known != state_->series.end() && now - known->second.last_seen >= kSeriesEnd) {
    if (known->second.written < known->second.count) (void)WriteSeries(known->second);
    state_->series.erase(known);
    known = state_->series.end();
  }
  if (known != state_->series.end()) {
    Series& series = known->second;
    ++series.count;
    series.last = pending.at;
    series.last_seen = now;
    // The second time is news; after that, the tending tells how often.
    if (series.count != 2 || WriteSeries(series)) return true;
    --series.count;
    return false;
  }

  const Key& key = pending.key;
  char unique[32];
  std::snprintf(unique, sizeof(unique), "%llx",
                static_cast<unsigned long long>(pending.at.time_since_epoch().count()) +
                    static_cast<unsigned long long>(state_->made++));
  Series series;
  series.event = {key.regarding.ns.empty() ? "default" : key.regarding.ns,
                  Cut(key.regarding.name, 200) + "." + unique};
  series.last = pending.at;
  series.last_seen = series.last_written = now;
  json event{{"apiVersion", "events.k8s.io/v1"},
             {"kind", "Event"},
             {"metadata", {{"name", series.event.name}, {"namespace", series.event.ns}}},
             {"eventTime", FormatMicroTime(pending.at)},
             {"type", key.type == EventType::kNormal ? "Normal" : "Warning"},
             {"reason", key.reason},
             {"action", key.action},
             {"note", key.note},
             {"regarding", ReferenceOf(key.regarding)},
             {"reportingController", options_.controller},
             {"reportingInstance", options_.instance}};
  if (!options_.labels.empty()) event["metadata"]["labels"] = options_.labels;
  if (key.related) event["related"] = ReferenceOf(*key.related);
  const auto created = client_.Create(types::kEvents, series.event.ns, JsonText(event));
  if (!created && created.error().IsRetryable() && created.error().code() != ErrorCode::kNotFound &&
      created.error().code() != ErrorCode::kPermission &&
      created.error().code() != ErrorCode::kAlreadyExists) {
    return false;
  }
  if (!created) {
    // Nothing that another try could change (the namespace is going, say).
    state_->failed.Increment();
    log::Info("event refused", {{"reason", key.reason}, {"error", created.error().message()}});
    return true;
  }
  state_->series.emplace(key, std::move(series));
  return true;
}

bool EventRecorder::WriteSeries(Series& series) {
  const json patch{
      {"series", {{"count", series.count}, {"lastObservedTime", FormatMicroTime(series.last)}}}};
  const auto written = client_.MergePatch(types::kEvents, series.event, JsonText(patch));
  if (!written && written.error().code() == ErrorCode::kUnavailable) return false;
  // Gone by its time to live, or refused: the next one of its kind will be a new Event.
  if (!written) series.last_seen = MonotonicTime();
  series.written = series.count;
  series.last_written = options_.clock->Now();
  return true;
}

void EventRecorder::TendSeries() {
  std::lock_guard lock(state_->writing);
  const MonotonicTime now = options_.clock->Now();
  for (auto it = state_->series.begin(); it != state_->series.end();) {
    Series& series = it->second;
    const bool ended = now - series.last_seen >= kSeriesEnd;
    const bool due = ended || now - series.last_written >= kSeriesRefresh;
    const bool told = !due || series.written == series.count || WriteSeries(series);
    it = ended && told ? state_->series.erase(it) : std::next(it);
  }
}

}  // namespace dormouse::kube
