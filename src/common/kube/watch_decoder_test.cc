#include "src/common/kube/watch_decoder.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

namespace dormouse::kube {
namespace {

using nlohmann::json;
using testing::ElementsAre;

constexpr char kEvents[] =
    "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\\n{[\\\"\"}}}\n"
    "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"7\"}}}\n"
    "\n"
    "{\"type\":\"DELETED\",\"object\":{\"metadata\":{\"name\":\"b\"}}}\n";

struct Heard {
  std::vector<std::pair<WatchEventType, std::string>> events;
  WatchDecoder::Sink sink() {
    return [this](WatchEventType type, const json& object) -> Result<> {
      events.emplace_back(type, object["metadata"].value("name", ""));
      return {};
    };
  }
};

TEST(WatchDecoderTest, EventsDoNotDependOnWhereReadsEnd) {
  const std::string_view all(kEvents);
  for (size_t piece = 1; piece <= all.size(); ++piece) {
    Heard heard;
    WatchDecoder decoder(heard.sink());
    for (size_t at = 0; at < all.size(); at += piece) {
      ASSERT_TRUE(decoder.Feed(all.substr(at, piece)));
    }
    EXPECT_THAT(heard.events, ElementsAre(testing::Pair(WatchEventType::kAdded, "a\n{[\""),
                                          testing::Pair(WatchEventType::kBookmark, ""),
                                          testing::Pair(WatchEventType::kDeleted, "b")));
    EXPECT_TRUE(decoder.AtBoundary());
  }
}

TEST(WatchDecoderTest, HalfAnEventIsNoBoundary) {
  Heard heard;
  WatchDecoder decoder(heard.sink());
  ASSERT_TRUE(decoder.Feed("{\"type\":\"ADDED\","));
  EXPECT_FALSE(decoder.AtBoundary());
  EXPECT_TRUE(heard.events.empty());
}

TEST(WatchDecoderTest, AnEventWithoutEndIsRefusedAtTheLimit) {
  Heard heard;
  WatchDecoder decoder(heard.sink(), 100);
  EXPECT_TRUE(decoder.Feed(std::string(100, 'x')));
  EXPECT_EQ(decoder.Feed("x").error().code(), ErrorCode::kCorrupt);
}

TEST(WatchDecoderTest, WhatIsNoEventIsCorrupt) {
  for (const std::string text :
       {"nonsense", "[]", "{}", "{\"type\":\"ADDED\"}", "{\"type\":1,\"object\":{}}",
        "{\"type\":\"ADDED\",\"object\":3}", "{\"type\":\"ADDED\",\"object\":{}"}) {
    Heard heard;
    EXPECT_EQ(WatchDecoder(heard.sink()).Feed(text + "\n").error().code(), ErrorCode::kCorrupt)
        << text;
  }
}

TEST(WatchDecoderTest, AnUnknownTypeIsLeftOut) {
  Heard heard;
  EXPECT_TRUE(WatchDecoder(heard.sink()).Feed("{\"type\":\"NEWKIND\",\"object\":{}}\n"));
  EXPECT_TRUE(heard.events.empty());
}

TEST(WatchDecoderTest, DeepNestingIsRefused) {
  Heard heard;
  const std::string deep = "{\"type\":\"ADDED\",\"object\":" + std::string(100000, '[') + "\n";
  EXPECT_EQ(WatchDecoder(heard.sink()).Feed(deep).error().code(), ErrorCode::kCorrupt);
}

struct Items {
  std::vector<std::string> names;
  ListDecoder::Sink sink() {
    return [this](const json& item) -> Result<> {
      names.push_back(item.value(json::json_pointer("/metadata/name"), "?"));
      return {};
    };
  }
};

TEST(ListDecoderTest, ItemsComeOneByOneWhereverReadsEnd) {
  const std::string all =
      " {\"kind\":\"SandboxList\",\"apiVersion\":\"v1\",\"n\":12 ,\"t\":true,"
      "\"metadata\":{\"resourceVersion\":\"42\",\"continue\":\"to\\\"ken\"},\n"
      "\"items\" : [ {\"metadata\":{\"name\":\"a]},{\"},\"items\":[{}]} "
      ",\n{\"metadata\":{\"name\":\"b\"}}\n] }\n";
  for (size_t piece = 1; piece <= all.size(); ++piece) {
    Items items;
    ListDecoder decoder(items.sink());
    for (size_t at = 0; at < all.size(); at += piece) {
      const auto fed = decoder.Feed(std::string_view(all).substr(at, piece));
      ASSERT_TRUE(fed) << fed.error().message();
    }
    EXPECT_THAT(items.names, ElementsAre("a]},{", "b"));
    EXPECT_TRUE(decoder.Done());
    EXPECT_EQ(decoder.resource_version(), ResourceVersion("42"));
    EXPECT_EQ(decoder.continue_token(), "to\"ken");
  }
}

TEST(ListDecoderTest, MetadataMayComeLast) {
  Items items;
  ListDecoder decoder(items.sink());
  ASSERT_TRUE(decoder.Feed("{\"items\":[],\"metadata\":{\"resourceVersion\":\"9\"}}"));
  EXPECT_TRUE(decoder.Done());
  EXPECT_EQ(decoder.resource_version(), ResourceVersion("9"));
}

TEST(ListDecoderTest, NoItemsAtAllIsAnEmptyList) {
  Items items;
  ListDecoder decoder(items.sink());
  ASSERT_TRUE(decoder.Feed("{\"metadata\":{\"resourceVersion\":\"9\"},\"items\":null}"));
  EXPECT_TRUE(decoder.Done());
}

TEST(ListDecoderTest, ATruncatedListIsNotDone) {
  Items items;
  ListDecoder decoder(items.sink());
  ASSERT_TRUE(decoder.Feed("{\"items\":[{\"metadata\":{\"name\":\"a\"}}"));
  EXPECT_FALSE(decoder.Done());
}

TEST(ListDecoderTest, WhatIsNoListIsCorrupt) {
  for (const char* text :
       {"[]", "x", "{1", "{\"items\":[1]}", "{\"items\":[{]}", "{\"a\" 1}", "{\"a\":}",
        "{\"a\":1}}", "{\"items\":[{}}", "{\"a\":[}}", "{\"a\":1 2}"}) {
    Items items;
    EXPECT_FALSE(ListDecoder(items.sink()).Feed(text)) << text;
  }
}

TEST(ListDecoderTest, AnItemBeyondTheLimitIsRefused) {
  Items items;
  ListDecoder decoder(items.sink(), 64);
  EXPECT_EQ(decoder.Feed("{\"items\":[{\"a\":\"" + std::string(64, 'x')).error().code(),
            ErrorCode::kCorrupt);
}

TEST(ListDecoderTest, WhatTheSinkRefusesEndsTheFeed) {
  ListDecoder decoder(
      [](const json&) -> Result<> { return Fail(ErrorCode::kCancelled, "enough"); });
  EXPECT_EQ(decoder.Feed("{\"items\":[{},{}]}").error().code(), ErrorCode::kCancelled);
}

}  // namespace
}  // namespace dormouse::kube
