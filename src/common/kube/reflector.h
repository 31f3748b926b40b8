// Keeps a Store equal to what the API server has of one kind: list, then watch, for ever
// (the rules of client-go's tools/cache/reflector.go).
//
// ListWatch is the untyped core: it decides what to ask next and when. Reflector<T> puts typed
// objects into a Store<T> on a thread of its own. Errors never end it: it backs off and goes on;
// they are logged, and counted in dormouse_reflector_errors_total{resource}.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <random>
#include <stop_token>
#include <string>
#include <thread>

#include "src/common/base/clock.h"
#include "src/common/base/log.h"
#include "src/common/base/metrics.h"
#include "src/common/kube/http_transport.h"
#include "src/common/kube/store.h"
#include "src/common/kube/types.h"
#include "src/common/kube/waiter.h"
#include "src/common/kube/watch_decoder.h"

namespace dormouse::kube {

struct WatchSpec {
  ResourceType type{};
  std::string ns{};              ///< empty = all
  std::string field_selector{};  ///< e.g. "status.nodeName=node-1"; not encoded
  std::string label_selector{};
  /// A watch without a byte for so long is dead: the server sends a bookmark each 60 s.
  std::chrono::milliseconds idle_limit{130'000};
  /// A list may take so long. Without a byte: idle_limit.
  std::chrono::milliseconds list_limit{300'000};
  /// Take lists as gzip (the server compresses from 128 KiB on). API servers before 1.33 send a
  /// plain list as one chunk, which cpprestsdk holds in whole; compressed ones come in small
  /// chunks. See StreamRequest.
  bool compress_lists = true;
};

/// What happens to the collection. Calls come one at a time.
class WatchHandler {
 public:
  virtual ~WatchHandler() = default;
  virtual void OnListBegin() = 0;
  /// An object as it is now; `listed` when it came as an item of a list.
  virtual void OnObject(const ObjectRef& ref, const nlohmann::json& object, bool listed) = 0;
  /// It left the selection, or the cluster: a live read tells which.
  virtual void OnGone(const ObjectRef& ref) = 0;
  /// A whole list was handed over: what was not in it is gone.
  virtual void OnListEnd(const ResourceVersion& version) = 0;
  virtual void OnBookmark(const ResourceVersion& version) = 0;
};

/// Lists and watches, one request per Step. Not thread-safe: one thread owns it.
class ListWatch {
 public:
  ListWatch(HttpTransport& transport, WatchSpec spec, WatchHandler& handler,
            const Clock& clock = Clock::System(), Backoff::Options backoff = {},
            metrics::Registry& metrics = metrics::Registry::Default());

  /// Does the next list, or one watch until it ends; returns how long to wait before the next Step.
  [[nodiscard]] std::chrono::nanoseconds Step(const std::stop_token& stop);
  /// Steps until `stop`.
  void Run(const std::stop_token& stop, Waiter& waiter = Waiter::System());

  /// Where the next watch resumes; empty = the next Step lists.
  [[nodiscard]] const ResourceVersion& version() const { return version_; }

 private:
  [[nodiscard]] std::chrono::nanoseconds List(const std::stop_token& stop);
  Result<> ListPages(const std::string& from_version, const std::stop_token& stop);
  /// Asks which version is the latest, and lists again where that is older than what we had: etcd
  /// was restored from a snapshot. A watch from a version that is yet to come is silent until then.
  [[nodiscard]] std::chrono::nanoseconds CheckHistory(const std::stop_token& stop);
  [[nodiscard]] std::chrono::nanoseconds Watch(const std::stop_token& stop);
  Result<> Deliver(WatchEventType type, const nlohmann::json& object);
  [[nodiscard]] std::chrono::nanoseconds WatchRefused(const HttpResponse& answer);
  [[nodiscard]] std::chrono::nanoseconds Failed(const char* what, const Error& error);
  [[nodiscard]] std::string Query() const;

  HttpTransport& transport_;
  WatchSpec spec_;
  WatchHandler& handler_;
  const Clock& clock_;
  Backoff backoff_;
  metrics::Counter errors_;
  metrics::Counter lists_;
  std::mt19937_64 random_;
  ResourceVersion version_;  ///< of the last object or bookmark
  bool must_list_ = true;
  bool must_check_ = false;    ///< the last watch did not end as agreed: the server may be another
  bool version_gone_ = false;  ///< what the last list was told about the version it asked for
  bool version_unavailable_ = false;  ///< so the next one asks for the latest
  std::optional<MonotonicTime> expired_at_;
};

/// Decodes into a Store<T>. Start once; Stop (or the destructor) ends the thread and any open
/// request.
template <typename T>
class Reflector {
 public:
  /// An object that fails to decode is logged and left out; what the store held of it stays.
  using Decode = std::function<Result<T>(const nlohmann::json&)>;

  Reflector(HttpTransport& transport, WatchSpec spec, Decode decode, Store<T>& store,
            const Clock& clock = Clock::System())
      : feeder_(spec.type.plural, std::move(decode), store),
        list_watch_(transport, std::move(spec), feeder_, clock) {}
  ~Reflector() { Stop(); }
  Reflector(const Reflector&) = delete;
  Reflector& operator=(const Reflector&) = delete;

  void Start() {
    thread_ = std::jthread([this](const std::stop_token& stop) { list_watch_.Run(stop); });
  }
  void Stop() {
    if (!thread_.joinable()) return;
    thread_.request_stop();
    thread_.join();
  }

 private:
  class Feeder : public WatchHandler {
   public:
    Feeder(std::string resource, Decode decode, Store<T>& store)
        : resource_(std::move(resource)), decode_(std::move(decode)), store_(store) {}
    void OnListBegin() override { store_.BeginReplace(); }
    void OnObject(const ObjectRef& ref, const nlohmann::json& object, bool listed) override {
      Result<T> decoded = decode_(object);
      if (!decoded) {
        log::Warning("object does not decode", {{"resource", resource_},
                                                {"object", ref.key.ToString()},
                                                {"error", decoded.error().message()}});
        store_.Keep(ref.key);
        return;
      }
      store_.Upsert(ref, std::make_shared<const T>(std::move(*decoded)), listed);
    }
    void OnGone(const ObjectRef& ref) override { store_.Remove(ref); }
    void OnListEnd(const ResourceVersion& version) override { store_.EndReplace(version); }
    void OnBookmark(const ResourceVersion& version) override { store_.SetVersion(version); }

   private:
    std::string resource_;
    Decode decode_;
    Store<T>& store_;
  };

  Feeder feeder_;
  ListWatch list_watch_;
  std::jthread thread_;
};

}  // namespace dormouse::kube
