#include "src/common/kube/store.h"

#include <gmock/gmock.h>

#include "src/common/kube/own_writes.h"

namespace dormouse::kube {
namespace {

using testing::ElementsAre;
using testing::UnorderedElementsAre;

struct Thing {
  std::string node;
};

ObjectRef Ref(const std::string& name, const std::string& uid, const std::string& version) {
  return {{"ns", name}, uid, ResourceVersion(version)};
}
std::shared_ptr<const Thing> On(const std::string& node) {
  return std::make_shared<const Thing>(Thing{node});
}

class StoreTest : public testing::Test {
 protected:
  StoreTest() {
    store_.AddIndex("node",
                    [](const Thing& thing) { return std::vector<std::string>{thing.node}; });
    store_.Subscribe([this](const Store<Thing>::Change& change) {
      const char* what = change.before == nullptr ? "+" : change.after == nullptr ? "-" : "~";
      changes_.push_back(what + change.ref.key.name + "/" + change.ref.uid +
                         (change.initial ? "!" : ""));
    });
  }
  void List(std::initializer_list<std::pair<ObjectRef, std::string>> items,
            const std::string& version) {
    store_.BeginReplace();
    for (const auto& [ref, node] : items) store_.Upsert(ref, On(node), true);
    store_.EndReplace(ResourceVersion(version));
  }
  std::vector<std::string> Take() { return std::exchange(changes_, {}); }

  Store<Thing> store_;
  std::vector<std::string> changes_;
};

TEST_F(StoreTest, AListAnswersByKeyUidAndIndex) {
  EXPECT_FALSE(store_.Synced());
  List({{Ref("a", "1", "5"), "n1"}, {Ref("b", "2", "6"), "n2"}}, "9");
  EXPECT_TRUE(store_.Synced());
  EXPECT_EQ(store_.Get({"ns", "a"})->node, "n1");
  EXPECT_EQ(store_.GetByUid("2")->node, "n2");
  EXPECT_EQ(store_.ByIndex("node", "n1").size(), 1u);
  EXPECT_EQ(store_.Get({"ns", "c"}), nullptr);
  EXPECT_THAT(Take(), UnorderedElementsAre("+a/1!", "+b/2!"));
}

TEST_F(StoreTest, ADeletionThatWasMissedIsMadeUpFor) {
  List({{Ref("a", "1", "5"), "n1"}, {Ref("b", "2", "6"), "n2"}}, "9");
  Take();
  List({{Ref("b", "2", "6"), "n2"}}, "20");
  EXPECT_THAT(Take(), ElementsAre("-a/1")) << "and nothing about b, which did not change";
  EXPECT_EQ(store_.GetByUid("1"), nullptr);
  EXPECT_TRUE(store_.ByIndex("node", "n1").empty());
}

TEST_F(StoreTest, ANameTakenAnewIsADeletionAndACreation) {
  List({{Ref("a", "1", "5"), "n1"}}, "9");
  Take();
  store_.Upsert(Ref("a", "2", "12"), On("n3"), false);
  EXPECT_THAT(Take(), ElementsAre("-a/1", "+a/2"));
  EXPECT_EQ(store_.GetByUid("1"), nullptr);
  EXPECT_EQ(store_.GetByUid("2")->node, "n3");
}

TEST_F(StoreTest, ALateDeletionOfAPredecessorSparesTheSuccessor) {
  List({{Ref("a", "2", "12"), "n1"}}, "12");
  store_.Remove(Ref("a", "1", "11"));
  EXPECT_NE(store_.Get({"ns", "a"}), nullptr);
}

TEST_F(StoreTest, IndexesFollowTheObject) {
  List({{Ref("a", "1", "5"), "n1"}}, "9");
  store_.Upsert(Ref("a", "1", "10"), On("n2"), false);
  EXPECT_TRUE(store_.ByIndex("node", "n1").empty());
  EXPECT_EQ(store_.ByIndex("node", "n2").size(), 1u);
  store_.Remove(Ref("a", "1", "11"));
  EXPECT_TRUE(store_.ByIndex("node", "n2").empty());
  EXPECT_EQ(store_.Size(), 0u);
}

TEST_F(StoreTest, OurOwnWriteIsSeenByEventOrBookmark) {
  List({{Ref("a", "1", "5"), "n1"}}, "9");
  EXPECT_TRUE(store_.HasSeen(ResourceVersion("9")));
  EXPECT_FALSE(store_.HasSeen(ResourceVersion("10")));
  store_.Upsert(Ref("a", "1", "10"), On("n1"), false);
  EXPECT_TRUE(store_.HasSeen(ResourceVersion("10")));
  store_.SetVersion(ResourceVersion("100"));
  EXPECT_TRUE(store_.HasSeen(ResourceVersion("99")));
}

TEST_F(StoreTest, WhatCouldNotBeDecodedIsNotDeleted) {
  List({{Ref("a", "1", "5"), "n1"}}, "9");
  store_.BeginReplace();
  store_.Keep({"ns", "a"});
  store_.EndReplace(ResourceVersion("20"));
  EXPECT_NE(store_.Get({"ns", "a"}), nullptr);
}

TEST(ResourceVersionTest, NumbersAreComparedAsNumbers) {
  EXPECT_TRUE(ResourceVersion("10").IsAtLeast(ResourceVersion("9")));
  EXPECT_FALSE(ResourceVersion("9").IsAtLeast(ResourceVersion("10")));
  EXPECT_FALSE(ResourceVersion("abc").IsAtLeast(ResourceVersion("9")));
  EXPECT_FALSE(ResourceVersion().IsAtLeast(ResourceVersion("1")));
}

TEST_F(StoreTest, OurOwnWriteCountsUntilTheCacheShowsItOrItsListsGoBack) {
  OwnWrites<Thing> ours(store_);
  List({{Ref("a", "1", "5"), "n1"}}, "9");
  EXPECT_FALSE(ours.AreAhead("ns/a")) << "nothing was written";
  ours.Wrote("ns/a", ResourceVersion("12"));
  EXPECT_TRUE(ours.AreAhead("ns/a"));
  store_.Upsert(Ref("a", "1", "12"), On("n1"), false);
  EXPECT_FALSE(ours.AreAhead("ns/a"));

  ours.Wrote("ns/a", ResourceVersion("40"));
  List({{Ref("a", "1", "12"), "n1"}}, "30");
  EXPECT_TRUE(ours.AreAhead("ns/a")) << "a list that is only behind";
  List({{Ref("a", "1", "5"), "n1"}}, "20");
  EXPECT_FALSE(ours.AreAhead("ns/a")) << "etcd was restored: it never comes";
  ours.Wrote("ns/a", ResourceVersion("22"));
  EXPECT_TRUE(ours.AreAhead("ns/a")) << "of the new history";
  ours.Forget("ns/a");
  EXPECT_FALSE(ours.AreAhead("ns/a"));
}

}  // namespace
}  // namespace dormouse::kube
