#include "cli/follow.h"

#include <nlohmann/json.hpp>

#include "src/common/kube/client.h"
#include "src/common/kube/watch_decoder.h"

namespace dormouse::cli {
namespace {

using nlohmann::json;

constexpr int kWatchSeconds = 300;
/// A watch that ends sooner is followed by a pause, so that no server is asked in a busy loop.
constexpr auto kShortWatch = std::chrono::seconds(1);

bool EndsIt(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kNotFound:
    case ErrorCode::kPermission:
    case ErrorCode::kInvalid:
      return true;
    default:
      return false;
  }
}

/// One read and the watch that goes on from it.
class Round {
 public:
  Round(kube::HttpTransport& transport, const Followed& what, const OnObject& on_object)
      : transport_(transport), what_(what), on_object_(on_object) {}

  /// True when the following has ended; false when the watch has.
  Result<bool> Run(const std::stop_token& stop) {
    kube::HttpRequest read;
    read.target = what_.type.Path(what_.key.ns, what_.key.name);
    DORMOUSE_ASSIGN(const kube::HttpResponse answer, transport_.Request(read, stop));
    if (answer.status != 200) return Fail(kube::ErrorOfAnswer(Words("get"), answer));
    const json object = json::parse(answer.body, nullptr, false);
    DORMOUSE_ASSIGN(const kube::ObjectRef ref, kube::RefOf(object));
    if (ref.uid != what_.uid) {
      return Fail(ErrorCode::kNotFound, "it was deleted, and another of the same name was made");
    }
    if (!on_object_(object)) return true;
    return Watch(ref.resource_version, stop);
  }

 private:
  Result<bool> Watch(const kube::ResourceVersion& from, const std::stop_token& stop) {
    kube::StreamRequest request;
    request.target =
        what_.type.Path(what_.key.ns) +
        "?watch=true&allowWatchBookmarks=true&timeoutSeconds=" + std::to_string(kWatchSeconds) +
        "&fieldSelector=" + kube::PercentEncode("metadata.name=" + what_.key.name) +
        "&resourceVersion=" + kube::PercentEncode(from.text());
    bool ended = false;
    bool read_again = false;
    kube::WatchDecoder decoder([&](kube::WatchEventType type, const json& object) -> Result<> {
      if (type == kube::WatchEventType::kBookmark) return {};
      ended = type != kube::WatchEventType::kDeleted && type != kube::WatchEventType::kError &&
              IsOurs(object) && !on_object_(object);
      // What has gone, or comes from a version the server has forgotten, is for a live read to
      // tell.
      read_again = type == kube::WatchEventType::kDeleted;
      if (type == kube::WatchEventType::kError)
        return Fail(ErrorCode::kUnavailable, "the watch has ended");
      return ended || read_again ? Fail(ErrorCode::kCancelled, "seen enough") : Result<>();
    });
    const auto answer = transport_.Stream(
        request, [&decoder](std::string_view bytes) { return decoder.Feed(bytes); }, stop);
    if (ended || read_again) return ended;
    if (!answer) return Fail(answer.error());
    if (answer->status != 200) return Fail(kube::ErrorOfAnswer(Words("watch"), *answer));
    return false;
  }

  [[nodiscard]] bool IsOurs(const json& object) const {
    const auto ref = kube::RefOf(object);
    return ref && ref->uid == what_.uid;
  }
  [[nodiscard]] std::string Words(const char* verb) const {
    return std::string(verb) + " " + what_.type.plural + " " + what_.key.ToString();
  }

  kube::HttpTransport& transport_;
  const Followed& what_;
  const OnObject& on_object_;
};

}  // namespace

Result<> Follow(kube::HttpTransport& transport, const Followed& what, const OnObject& on_object,
                const std::stop_token& stop, const Clock& clock, kube::Waiter& waiter) {
  kube::Backoff::Options pauses;
  pauses.first = std::chrono::milliseconds(200);
  pauses.max = std::chrono::seconds(5);
  kube::Backoff backoff(clock, pauses);
  Round round(transport, what, on_object);
  while (!stop.stop_requested()) {
    const MonotonicTime started = clock.Now();
    const Result<bool> ended = round.Run(stop);
    if (ended && *ended) return {};
    if (!ended && EndsIt(ended.error())) return Fail(ended.error());
    if (stop.stop_requested()) break;
    const bool worked = ended && clock.Now() - started >= kShortWatch;
    if (!worked) (void)waiter.Wait(backoff.Next(), stop);
  }
  return Fail(ErrorCode::kCancelled, "no longer waited for");
}

}  // namespace dormouse::cli
