#include "src/common/kube/reflector.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/common/base/json_text.h"
#include "src/common/kube/client.h"
#include "src/common/kube/watch_decoder.h"

namespace dormouse::kube {
namespace {

using nlohmann::json;
using std::chrono::nanoseconds;

constexpr auto kNow = nanoseconds(0);
/// A watch that ends so soon, or breaks off so soon, is a server or a way to it in trouble.
constexpr auto kVeryShortWatch = std::chrono::seconds(1);
constexpr auto kBrokenOffSoon = std::chrono::seconds(10);
/// A watch may expire and be listed again at once; not more often than this.
constexpr auto kExpiredAgain = std::chrono::seconds(30);
/// client-go: the server ends a watch after a random time within these, so that clients do not come
/// at once.
constexpr int kWatchSecondsMin = 300;
constexpr int kWatchSecondsMax = 599;
/// Our own limit beyond what we asked the server for.
constexpr auto kWatchGrace = std::chrono::seconds(30);
constexpr int kPageSize = 500;

/// What a server that no longer has a version, or not yet, says about it.
struct Verdict {
  bool expired = false;    ///< 410: compacted, or out of the watch cache's window
  bool too_large = false;  ///< 504 with the cause ResourceVersionTooLarge
};

Verdict VerdictOf(int code, const json& status) {
  Verdict verdict;
  const auto text = [&status](const char* key) -> std::string {
    if (!status.is_object()) return "";
    const auto found = status.find(key);
    return found != status.end() && found->is_string() ? found->get<std::string>() : "";
  };
  const std::string reason = text("reason");
  verdict.expired = code == 410 || reason == "Expired" || reason == "Gone";
  if (code == 504 || reason == "Timeout") {
    verdict.too_large = text("message").find("Too large resource version") != std::string::npos;
    const auto details = status.is_object() ? status.find("details") : status.end();
    if (details != status.end() && details->is_object() && details->contains("causes")) {
      for (const json& cause : (*details)["causes"]) {
        if (cause.is_object() && cause.value("reason", "") == "ResourceVersionTooLarge") {
          verdict.too_large = true;
        }
      }
    }
  }
  return verdict;
}

bool IsTransportError(const Error& error) {
  return error.code() == ErrorCode::kUnavailable || error.code() == ErrorCode::kDeadline;
}

nanoseconds AtLeast(nanoseconds delay, const std::optional<std::chrono::seconds>& asked) {
  return asked ? std::max(delay, nanoseconds(*asked)) : delay;
}

}  // namespace

ListWatch::ListWatch(HttpTransport& transport, WatchSpec spec, WatchHandler& handler,
                     const Clock& clock, Backoff::Options backoff, metrics::Registry& metrics)
    : transport_(transport),
      spec_(std::move(spec)),
      handler_(handler),
      clock_(clock),
      backoff_(clock, backoff),
      errors_(metrics.MakeCounter("dormouse_reflector_errors_total",
                                  "Lists and watches that failed and were tried again.",
                                  {{"resource", spec_.type.plural}})),
      lists_(metrics.MakeCounter("dormouse_reflector_lists_total", "Full lists that were started.",
                                 {{"resource", spec_.type.plural}})),
      random_(backoff.seed) {}

void ListWatch::Run(const std::stop_token& stop, Waiter& waiter) {
  while (!stop.stop_requested()) {
    const nanoseconds delay = Step(stop);
    if (delay.count() > 0 && !waiter.Wait(delay, stop)) return;
  }
}

nanoseconds ListWatch::Step(const std::stop_token& stop) {
  if (!must_list_ && must_check_) {
    const nanoseconds delay = CheckHistory(stop);
    if (must_check_) return delay;
  }
  return must_list_ ? List(stop) : Watch(stop);
}

nanoseconds ListWatch::CheckHistory(const std::stop_token& stop) {
  HttpRequest request;
  // Without a selector: one object is enough, and a selector may make the server look at all. With
  // no version asked for, no cache that lags behind answers.
  request.target = spec_.type.Path(spec_.ns) + "?limit=1";
  const auto answer = transport_.Request(request, stop);
  if (stop.stop_requested()) return kNow;
  if (!answer) return Failed("list failed", answer.error());
  if (answer->status != 200)
    return Failed("list failed", ErrorOfAnswer("list " + spec_.type.plural, *answer));
  ResourceVersion latest;
  const json list = json::parse(answer->body, nullptr, false);
  if (list.is_object() && list.contains("metadata") && list["metadata"].is_object())
    latest = ResourceVersion(list["metadata"].value("resourceVersion", ""));
  must_check_ = false;
  if (latest.IsAtLeast(version_)) return kNow;
  log::Warning(
      "the API server's history has gone back, as after etcd was restored: listing anew",
      {{"resource", spec_.type.plural}, {"had", version_.text()}, {"latest", latest.text()}});
  must_list_ = version_unavailable_ = true;
  return kNow;
}

std::string ListWatch::Query() const {
  std::string query;
  if (!spec_.field_selector.empty())
    query += "&fieldSelector=" + PercentEncode(spec_.field_selector);
  if (!spec_.label_selector.empty())
    query += "&labelSelector=" + PercentEncode(spec_.label_selector);
  return query;
}

nanoseconds ListWatch::Failed(const char* what, const Error& error) {
  errors_.Increment();
  const nanoseconds delay = AtLeast(backoff_.Next(), error.retry_after());
  log::Warning(what,
               {{"resource", spec_.type.plural},
                {"retry_ms", std::chrono::duration_cast<std::chrono::milliseconds>(delay).count()},
                {"error", error.message()}});
  return delay;
}

nanoseconds ListWatch::List(const std::stop_token& stop) {
  // From the watch cache, not older than what we had; from etcd when the cache cannot say.
  const bool latest = version_unavailable_;
  const std::string from = latest ? "" : version_.empty() ? "0" : version_.text();
  lists_.Increment();
  const Result<> listed = ListPages(from, stop);
  if (stop.stop_requested()) return kNow;
  if (listed) {
    must_list_ = false;
    must_check_ = false;
    version_unavailable_ = false;
    return kNow;
  }
  // Ask for the latest, at once, but only once: if that fails as well, time must pass.
  if (version_gone_ && !latest) {
    version_unavailable_ = true;
    errors_.Increment();
    return kNow;
  }
  return Failed("list failed", listed.error());
}

Result<> ListWatch::ListPages(const std::string& from_version, const std::stop_token& stop) {
  version_gone_ = false;
  const std::string base = spec_.type.Path(spec_.ns) + "?";
  std::string page;
  handler_.OnListBegin();
  while (true) {
    StreamRequest request;
    request.idle_limit = spec_.idle_limit;
    request.total_limit = spec_.list_limit;
    request.compressed = spec_.compress_lists;
    if (!page.empty()) {
      request.target =
          base + "limit=" + std::to_string(kPageSize) + "&continue=" + PercentEncode(page);
    } else if (from_version.empty()) {
      request.target = base + "limit=" + std::to_string(kPageSize);
    } else {
      // With a version the watch cache answers, and ignores a limit.
      request.target =
          base + "resourceVersion=" + from_version + "&resourceVersionMatch=NotOlderThan";
    }
    request.target += Query();
    ListDecoder decoder([this](const json& item) -> Result<> {
      DORMOUSE_ASSIGN(const ObjectRef ref, RefOf(item));
      handler_.OnObject(ref, item, true);
      return {};
    });
    DORMOUSE_ASSIGN(
        const HttpResponse answer,
        transport_.Stream(
            request, [&decoder](std::string_view bytes) { return decoder.Feed(bytes); }, stop));
    if (answer.status != 200) {
      const Verdict verdict = VerdictOf(answer.status, json::parse(answer.body, nullptr, false));
      version_gone_ = verdict.expired || verdict.too_large;
      return Fail(ErrorOfAnswer("list " + spec_.type.plural, answer));
    }
    if (!decoder.Done()) {
      return Fail(ErrorCode::kUnavailable, "list " + spec_.type.plural + ": ends in the middle");
    }
    page = decoder.continue_token();
    if (page.empty()) {
      version_ = decoder.resource_version();
      handler_.OnListEnd(version_);
      return {};
    }
  }
}

nanoseconds ListWatch::Watch(const std::stop_token& stop) {
  const int seconds =
      std::uniform_int_distribution<int>(kWatchSecondsMin, kWatchSecondsMax)(random_);
  StreamRequest request;
  request.target =
      spec_.type.Path(spec_.ns) +
      "?watch=true&allowWatchBookmarks=true&timeoutSeconds=" + std::to_string(seconds) +
      "&resourceVersion=" + version_.text() + Query();
  request.idle_limit = spec_.idle_limit;
  request.total_limit = std::chrono::seconds(seconds) + kWatchGrace;

  std::optional<HttpResponse> in_stream;  // an ERROR event, as the answer it would have been
  WatchDecoder decoder([&](WatchEventType type, const json& object) -> Result<> {
    if (type == WatchEventType::kError) {
      const int code = object.value("code", 500);
      in_stream = HttpResponse{code, std::nullopt, JsonText(object)};
      return Fail(ErrorCode::kUnavailable, "the watch ended with an error");
    }
    return Deliver(type, object);
  });
  const MonotonicTime started = clock_.Now();
  auto answer = transport_.Stream(
      request, [&decoder](std::string_view bytes) { return decoder.Feed(bytes); }, stop);
  if (stop.stop_requested()) return kNow;

  const auto lasted = clock_.Now() - started;
  must_check_ = !answer || answer->status != 200 || lasted < std::chrono::seconds(seconds);
  if (in_stream) return WatchRefused(*in_stream);
  if (answer && answer->status != 200) return WatchRefused(*answer);
  if (!answer && !IsTransportError(answer.error())) {
    // What came made no sense: start over rather than miss something.
    must_list_ = true;
    return Failed("watch failed", answer.error());
  }
  // Ended in time, or broken off: go on from the last version, at once when it had worked for a
  // while.
  if (!answer && lasted < kBrokenOffSoon) return Failed("watch failed", answer.error());
  if (answer && lasted < kVeryShortWatch) {
    return Failed("watch failed",
                  Error(ErrorCode::kUnavailable, "the server ended the watch at once"));
  }
  if (!answer || !decoder.AtBoundary()) {
    errors_.Increment();
    log::Info("watch broke off",
              {{"resource", spec_.type.plural},
               {"error", answer ? "within an event" : answer.error().message()}});
  }
  return kNow;
}

Result<> ListWatch::Deliver(WatchEventType type, const json& object) {
  if (type == WatchEventType::kBookmark) {
    const auto metadata = object.find("metadata");
    if (metadata == object.end() || !metadata->is_object()) return {};
    ResourceVersion version(metadata->value("resourceVersion", ""));
    if (version.empty()) return {};
    version_ = version;
    handler_.OnBookmark(version_);
    return {};
  }
  DORMOUSE_ASSIGN(const ObjectRef ref, RefOf(object));
  if (ref.resource_version.empty()) {
    return Fail(ErrorCode::kCorrupt, "watch event: object without a resourceVersion");
  }
  if (type == WatchEventType::kDeleted) {
    handler_.OnGone(ref);
  } else {
    handler_.OnObject(ref, object, false);
  }
  version_ = ref.resource_version;
  return {};
}

nanoseconds ListWatch::WatchRefused(const HttpResponse& answer) {
  const Verdict verdict = VerdictOf(answer.status, json::parse(answer.body, nullptr, false));
  const Error error = ErrorOfAnswer("watch " + spec_.type.plural, answer);
  if (verdict.expired) {
    // Normal after a long silence or a server's restart: list again, first from where we were.
    must_list_ = true;
    log::Info("watch expired", {{"resource", spec_.type.plural}, {"version", version_.text()}});
    // The first time at once; a server that says so again and again is not asked in a busy loop.
    const MonotonicTime now = clock_.Now();
    const bool again = expired_at_ && now - *expired_at_ < kExpiredAgain;
    expired_at_ = now;
    return again ? Failed("watch failed", error) : kNow;
  }
  // Too busy, or our token is being renewed: the same watch later. Else a list says where we stand.
  if (answer.status != 429 && answer.status != 401 && answer.status != 503) must_list_ = true;
  return Failed("watch failed", error);
}

}  // namespace dormouse::kube
