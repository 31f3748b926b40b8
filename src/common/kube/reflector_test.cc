#include "src/common/kube/reflector.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <semaphore>

#include "tests/fakes/fake_http_transport.h"

namespace dormouse::kube {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::string Listed(const std::string& name, const std::string& version) {
  return "{\"metadata\":{\"namespace\":\"ns\",\"name\":\"" + name + "\",\"uid\":\"u-" + name +
         "\",\"resourceVersion\":\"" + version + "\"}}";
}
std::string List(const std::string& version, const std::string& items,
                 const std::string& next = "") {
  return "{\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"" + version +
         "\",\"continue\":\"" + next + "\"},\"items\":[" + items + "]}\n";
}
std::string Event(const std::string& type, const std::string& object) {
  return "{\"type\":\"" + type + "\",\"object\":" + object + "}\n";
}
const std::string kExpired =
    R"({"kind":"Status","status":"Failure","message":"too old resource version","reason":"Expired","code":410})";
const std::string kTooLarge =
    R"({"kind":"Status","status":"Failure","message":"Timeout: Too large resource version: 99, current: 5","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge"}],"retryAfterSeconds":1},"code":504})";
const std::string kBusy =
    R"({"kind":"Status","status":"Failure","message":"too many requests","reason":"TooManyRequests","code":429})";

class Recorder : public WatchHandler {
 public:
  void OnListBegin() override { heard.push_back("begin"); }
  void OnObject(const ObjectRef& ref, const nlohmann::json&, bool listed) override {
    heard.push_back((listed ? "item " : "put ") + ref.key.name);
  }
  void OnGone(const ObjectRef& ref) override { heard.push_back("gone " + ref.key.name); }
  void OnListEnd(const ResourceVersion& version) override {
    heard.push_back("end " + version.text());
  }
  void OnBookmark(const ResourceVersion& version) override {
    heard.push_back("mark " + version.text());
  }
  std::vector<std::string> heard;
};

class ReflectorTest : public testing::Test {
 protected:
  FakeHttpTransport::Answer Healthy(std::string body) {
    return {.body = std::move(body), .takes = 10min};
  }
  // What a watch that did not end as agreed is followed by.
  void PushLatest(const std::string& version) { transport_.Push({.body = List(version, "")}); }
  std::chrono::nanoseconds Step() { return list_watch_.Step(stop_.get_token()); }
  std::vector<std::string> Take() { return std::exchange(recorder_.heard, {}); }
  void Sync(const std::string& version) {
    transport_.Push({.body = List(version, "")});
    EXPECT_EQ(Step(), 0ns);
    Take();
  }

  FakeClock clock_;
  FakeHttpTransport transport_{&clock_};
  Recorder recorder_;
  metrics::Registry registry_;
  std::stop_source stop_;
  WatchSpec spec_{.type = {"dormouse.dev", "v1alpha1", "sandboxes"},
                  .field_selector = "status.nodeName=n 1"};
  ListWatch list_watch_{transport_, spec_, recorder_, clock_, {.jitter = 0, .seed = 1}, registry_};
};

TEST_F(ReflectorTest, ListsFromTheCacheThenWatchesFromThere) {
  transport_.Push({.body = List("10", Listed("a", "7") + "," + Listed("b", "8"))});
  transport_.Push(Healthy(Event("MODIFIED", Listed("a", "11")) +
                          Event("DELETED", Listed("b", "12")) +
                          Event("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"40\"}}")));
  EXPECT_EQ(Step(), 0ns);
  EXPECT_EQ(
      transport_.LastTarget(),
      "/apis/dormouse.dev/v1alpha1/sandboxes?resourceVersion=0&resourceVersionMatch=NotOlderThan"
      "&fieldSelector=status.nodeName%3Dn%201");
  EXPECT_EQ(Step(), 0ns);
  EXPECT_THAT(transport_.LastTarget(),
              HasSubstr("watch=true&allowWatchBookmarks=true&timeoutSeconds="));
  EXPECT_THAT(transport_.LastTarget(), HasSubstr("&resourceVersion=10&fieldSelector="));
  EXPECT_THAT(Take(),
              ElementsAre("begin", "item a", "item b", "end 10", "put a", "gone b", "mark 40"));
  EXPECT_EQ(list_watch_.version(), ResourceVersion("40"));
}

TEST_F(ReflectorTest, AWatchThatEndsInTimeIsTakenUpAtOnceFromItsBookmark) {
  Sync("10");
  transport_.Push(Healthy(Event("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"50\"}}")));
  EXPECT_EQ(Step(), 0ns);
  transport_.Push(Healthy(""));
  EXPECT_EQ(Step(), 0ns);
  EXPECT_THAT(transport_.LastTarget(), HasSubstr("&resourceVersion=50&"));
}

TEST_F(ReflectorTest, GoneInTheStreamListsAgainFromWhereItWas) {
  Sync("10");
  transport_.Push(Healthy(Event("ADDED", Listed("a", "12")) + Event("ERROR", kExpired)));
  EXPECT_EQ(Step(), 0ns);
  transport_.Push({.body = List("90", "")});
  EXPECT_EQ(Step(), 0ns);
  EXPECT_THAT(transport_.LastTarget(), HasSubstr("?resourceVersion=12&"));
  EXPECT_THAT(Take(), ElementsAre("put a", "begin", "end 90"));
}

TEST_F(ReflectorTest, GoneAsAnAnswerListsAgainAndThenAsksForTheLatestOnce) {
  Sync("10");
  transport_.Push({.status = 410, .body = kExpired});
  EXPECT_EQ(Step(), 0ns);
  transport_.Push({.status = 410, .body = kExpired});
  EXPECT_EQ(Step(), 0ns);
  transport_.Push({.status = 410, .body = kExpired});
  EXPECT_GT(Step(), 0ns) << "even the latest is gone: time must pass";
  EXPECT_THAT(transport_.LastTarget(), Not(HasSubstr("resourceVersion")));
  transport_.Push({.body = List("90", "")});
  EXPECT_EQ(Step(), 0ns);
  transport_.Push(Healthy(""));
  EXPECT_EQ(Step(), 0ns);
  EXPECT_THAT(transport_.LastTarget(), HasSubstr("&resourceVersion=90"));
}

TEST_F(ReflectorTest, AServerThatSaysGoneForEverIsNotABusyLoop) {
  Sync("10");
  transport_.Serve([](const HttpRequest& request) -> FakeHttpTransport::Answer {
    if (request.target.find("watch=true") == std::string::npos) return {.body = List("10", "")};
    return {.body = Event("ERROR", kExpired)};
  });
  int waits = 0;
  for (int i = 0; i < 20; ++i) waits += Step() > 0ns ? 1 : 0;
  EXPECT_GE(waits, 9);
}

TEST_F(ReflectorTest, AVersionTheServerDoesNotHaveYetAsksForTheLatest) {
  Sync("99");
  transport_.Push({.status = 504, .body = kTooLarge, .retry_after = 1s});
  EXPECT_GT(Step(), 0ns);
  transport_.Push({.status = 504, .body = kTooLarge, .retry_after = 1s});
  EXPECT_EQ(Step(), 0ns);
  transport_.Push({.body = List("5", Listed("a", "3"))});
  EXPECT_EQ(Step(), 0ns);
  EXPECT_EQ(list_watch_.version(), ResourceVersion("5"));
}

TEST_F(ReflectorTest, ABusyServerIsWaitedForAndTheSameWatchTriedAgain) {
  Sync("10");
  transport_.Push({.status = 429, .body = kBusy, .retry_after = 16s});
  EXPECT_EQ(Step(), 16s);
  PushLatest("10");
  transport_.Push(Healthy(""));
  EXPECT_EQ(Step(), 0ns);
  EXPECT_THAT(transport_.LastTarget(), HasSubstr("watch=true"));
  EXPECT_THAT(transport_.LastTarget(), HasSubstr("&resourceVersion=10&"));
}

TEST_F(ReflectorTest, AnUnreachableServerIsTriedEverMoreRarelyAndNothingIsLost) {
  Sync("10");
  const FakeHttpTransport::Answer refused{.error =
                                              Error(ErrorCode::kUnavailable, "connection refused")};
  std::vector<std::chrono::nanoseconds> waits;
  for (int i = 0; i < 8; ++i) {
    transport_.Push(refused);
    waits.push_back(Step());
  }
  EXPECT_THAT(waits, ElementsAre(800ms, 1600ms, 3200ms, 6400ms, 12800ms, 25600ms, 30s, 30s));
  EXPECT_THAT(Take(), testing::IsEmpty()) << "no list, no deletion";
  PushLatest("11");
  transport_.Push(Healthy(Event("ADDED", Listed("a", "11"))));
  EXPECT_EQ(Step(), 0ns);
  EXPECT_THAT(transport_.LastTarget(), HasSubstr("&resourceVersion=10&"));
}

TEST_F(ReflectorTest, TheBackOffStartsOverAfterTwoHealthyMinutes) {
  Sync("10");
  const FakeHttpTransport::Answer refused{.error =
                                              Error(ErrorCode::kUnavailable, "connection refused")};
  for (int i = 0; i < 5; ++i) {
    transport_.Push(refused);
    (void)Step();
  }
  PushLatest("10");
  transport_.Push(Healthy(""));
  EXPECT_EQ(Step(), 0ns);
  transport_.Push(refused);
  EXPECT_EQ(Step(), 800ms);
}

TEST_F(ReflectorTest, AWatchCutWithinAnEventGoesOnFromTheLastWholeOne) {
  Sync("10");
  transport_.Push({.body = Event("ADDED", Listed("a", "11")) + "{\"type\":\"ADDED\",\"obj",
                   .error = Error(ErrorCode::kUnavailable, "truncated chunk"),
                   .takes = 3min});
  EXPECT_EQ(Step(), 0ns);
  PushLatest("12");
  transport_.Push(Healthy(""));
  EXPECT_EQ(Step(), 0ns);
  EXPECT_THAT(transport_.LastTarget(), HasSubstr("&resourceVersion=11&"));
}

TEST_F(ReflectorTest, AWatchThatEndsAtOnceIsNotABusyLoop) {
  Sync("10");
  transport_.Push({.body = ""});
  EXPECT_EQ(Step(), 800ms);
  PushLatest("11");
  transport_.Push({.body = Event("ADDED", Listed("a", "11"))});
  EXPECT_EQ(Step(), 1600ms) << "nor when each brings an event";
  PushLatest("11");
  transport_.Push({.body = "", .error = Error(ErrorCode::kUnavailable, "reset"), .takes = 2s});
  EXPECT_EQ(Step(), 3200ms) << "nor when each is broken off";
}

TEST_F(ReflectorTest, AHistoryThatWentBackIsListedAnewAfterTheWatchBroke) {
  Sync("99");
  const std::pair<const char*, FakeHttpTransport::Answer> breaks[] = {
      {"torn off", {.error = Error(ErrorCode::kUnavailable, "reset"), .takes = 3min}},
      {"ended by a server that stops", {.body = "", .takes = 3min}},
      {"not answered by one that starts", {.status = 503, .body = "starting"}}};
  for (const auto& [how, broken] : breaks) {
    SCOPED_TRACE(how);
    transport_.Push(broken);
    (void)Step();
    transport_.Push({.error = Error(ErrorCode::kUnavailable, "connection refused")});
    EXPECT_GT(Step(), 0ns) << "not down for ever";
    PushLatest("5");
    transport_.Push({.body = List("5", Listed("a", "3"))});
    EXPECT_EQ(Step(), 0ns);
    EXPECT_THAT(transport_.LastTarget(), Not(HasSubstr("resourceVersion"))) << "the latest";
    EXPECT_THAT(Take(), ElementsAre("begin", "item a", "end 5"));
    transport_.Push(Healthy(Event("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"99\"}}")));
    EXPECT_EQ(Step(), 0ns);
    Take();
  }
}

TEST_F(ReflectorTest, GarbageInAWatchListsAgainAfterAPause) {
  Sync("10");
  transport_.Push(Healthy("<html>proxy error</html>\n"));
  EXPECT_EQ(Step(), 800ms);
  transport_.Push({.body = List("11", "")});
  EXPECT_EQ(Step(), 0ns);
  EXPECT_THAT(Take(), ElementsAre("begin", "end 11"));
}

TEST_F(ReflectorTest, AListCutInTheMiddleDeletesNothing) {
  transport_.Push(
      {.body = "{\"metadata\":{\"resourceVersion\":\"10\"},\"items\":[" + Listed("a", "7")});
  EXPECT_GT(Step(), 0ns);
  EXPECT_THAT(Take(), ElementsAre("begin", "item a")) << "no end: nothing counts as gone";
  EXPECT_TRUE(list_watch_.version().empty());
}

TEST_F(ReflectorTest, TheLatestComesInPages) {
  Sync("10");
  transport_.Push({.status = 410, .body = kExpired});
  (void)Step();
  transport_.Push({.status = 410, .body = kExpired});
  (void)Step();
  Take();
  transport_.Push({.body = List("90", Listed("a", "7"), "page/2=")});
  transport_.Push({.body = List("90", Listed("b", "8"))});
  EXPECT_EQ(Step(), 0ns);
  EXPECT_THAT(transport_.LastTarget(), HasSubstr("limit=500&continue=page%2F2%3D&fieldSelector="));
  EXPECT_THAT(Take(), ElementsAre("begin", "item a", "item b", "end 90"));
}

TEST_F(ReflectorTest, RunStopsWhenAsked) {
  transport_.Serve([this](const HttpRequest&) -> FakeHttpTransport::Answer {
    stop_.request_stop();
    return {.error = Error(ErrorCode::kCancelled, "stop")};
  });
  FakeWaiter waiter(clock_);
  list_watch_.Run(stop_.get_token(), waiter);
  EXPECT_TRUE(waiter.Waits().empty());
}

TEST(TypedReflectorTest, ObjectsThatDoNotDecodeLeaveTheOthersAlone) {
  FakeHttpTransport transport;
  transport.Push({.body = List("10", Listed("good", "7") + "," + Listed("bad", "8"))});
  std::binary_semaphore watching(0);
  transport.Serve([&](const HttpRequest&) -> FakeHttpTransport::Answer {
    watching.release();
    return {.error = Error(ErrorCode::kUnavailable, "no more")};
  });
  Store<std::string> store;
  Reflector<std::string> reflector(
      transport, {.type = {"g", "v", "things"}},
      [](const nlohmann::json& object) -> Result<std::string> {
        const std::string name = object["metadata"]["name"];
        if (name == "bad") return Fail(ErrorCode::kCorrupt, "no");
        return name;
      },
      store);
  reflector.Start();
  ASSERT_TRUE(store.WaitForSync(20s));
  watching.acquire();
  reflector.Stop();
  EXPECT_EQ(store.Size(), 1u);
  EXPECT_EQ(*store.Get({"ns", "good"}), "good");
}

}  // namespace
}  // namespace dormouse::kube
