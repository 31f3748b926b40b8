#include "src/common/kube/work_queue.h"

#include <gmock/gmock.h>

#include <thread>

namespace dormouse::kube {
namespace {

using namespace std::chrono_literals;

class WorkQueueTest : public testing::Test {
 protected:
  FakeClock clock_;
  metrics::Registry registry_;
  WorkQueue queue_{
      {.name = "test", .jitter = 0, .seed = 1, .clock = &clock_, .metrics = &registry_}};
};

TEST_F(WorkQueueTest, AKeyWaitsOnceHoweverOftenItIsAdded) {
  queue_.Add("a");
  queue_.Add("b");
  queue_.Add("a");
  EXPECT_EQ(queue_.Depth(), 2u);
  EXPECT_EQ(queue_.TryGet(), "a");
  EXPECT_EQ(queue_.TryGet(), "b");
  EXPECT_EQ(queue_.TryGet(), std::nullopt);
}

TEST_F(WorkQueueTest, AKeyIsWorkedOnByOneWorkerAtATimeAndComesBack) {
  queue_.Add("a");
  ASSERT_EQ(queue_.TryGet(), "a");
  queue_.Add("a");
  queue_.Add("a");
  EXPECT_EQ(queue_.TryGet(), std::nullopt) << "still worked on";
  queue_.Done("a");
  EXPECT_EQ(queue_.TryGet(), "a");
  queue_.Done("a");
  EXPECT_EQ(queue_.TryGet(), std::nullopt);
}

TEST_F(WorkQueueTest, TheEarliestOfSeveralDelaysCounts) {
  queue_.AddAfter("a", 10s);
  queue_.AddAfter("a", 5s);
  queue_.AddAfter("a", 7s);
  EXPECT_EQ(queue_.DelayedCount(), 1u);
  clock_.Advance(4999ms);
  EXPECT_EQ(queue_.TryGet(), std::nullopt);
  clock_.Advance(1ms);
  EXPECT_EQ(queue_.TryGet(), "a");
  queue_.Done("a");
  clock_.Advance(1h);
  EXPECT_EQ(queue_.TryGet(), std::nullopt) << "one delay, not three";
}

TEST_F(WorkQueueTest, BackOffDoublesUpToItsLimitAndIsForgotten) {
  const auto delay_of = [&] {
    queue_.AddRateLimited("a");
    auto waited = 0ms;
    std::optional<std::string> key;
    while (!(key = queue_.TryGet())) {
      clock_.Advance(5ms);
      waited += 5ms;
    }
    queue_.Done(*key);
    return waited;
  };
  EXPECT_EQ(delay_of(), 5ms);
  EXPECT_EQ(delay_of(), 10ms);
  EXPECT_EQ(delay_of(), 20ms);
  EXPECT_EQ(queue_.Failures("a"), 3);
  for (int i = 0; i < 20; ++i) (void)delay_of();
  EXPECT_EQ(delay_of(), 5min);
  queue_.Forget("a");
  EXPECT_EQ(queue_.Failures("a"), 0);
  EXPECT_EQ(delay_of(), 5ms);
}

TEST_F(WorkQueueTest, JitterSpreadsKeysThatFailTogether) {
  WorkQueue queue(
      {.name = "jitter", .jitter = 0.2, .seed = 7, .clock = &clock_, .metrics = &registry_});
  for (int i = 0; i < 100; ++i) queue.AddRateLimited("key" + std::to_string(i));
  clock_.Advance(3999us);
  EXPECT_EQ(queue.TryGet(), std::nullopt);
  clock_.Advance(1001us);
  int ready = 0;
  while (queue.TryGet()) ++ready;
  EXPECT_GT(ready, 20);
  EXPECT_LT(ready, 80);
  clock_.Advance(1ms);
  while (queue.TryGet()) ++ready;
  EXPECT_EQ(ready, 100);
}

TEST_F(WorkQueueTest, AUsersEditOvertakesAFirstListing) {
  for (int i = 0; i < 1000; ++i) queue_.Add("old" + std::to_string(i), Priority::kLow);
  queue_.Add("new");
  queue_.Add("old500");
  EXPECT_EQ(queue_.TryGet(), "new");
  EXPECT_EQ(queue_.TryGet(), "old500") << "lifted by its second, normal add";
  EXPECT_EQ(queue_.TryGet(), "old0");
  int rest = 0;
  while (queue_.TryGet()) ++rest;
  EXPECT_EQ(rest, 998) << "the lifted one does not come twice";
}

TEST_F(WorkQueueTest, ShutdownReleasesWaitersAndTakesNothingNew) {
  std::jthread worker([&] { EXPECT_EQ(queue_.Get(), std::nullopt); });
  queue_.ShutDown();
  worker.join();
  queue_.Add("a");
  EXPECT_EQ(queue_.TryGet(), std::nullopt);
}

TEST_F(WorkQueueTest, DrainWaitsForWhatIsWorkedOn) {
  queue_.Add("a");
  ASSERT_EQ(queue_.TryGet(), "a");
  EXPECT_FALSE(queue_.ShutDownWithDrain(1ms));
  std::jthread worker([&] { queue_.Done("a"); });
  EXPECT_TRUE(queue_.ShutDownWithDrain(20s));
}

TEST(WorkQueueThreadsTest, NoKeyIsLostOrDoubledUnderLoad) {
  metrics::Registry registry;
  WorkQueue queue({.name = "load", .base_delay = 10us, .metrics = &registry});
  constexpr int kKeys = 50;
  constexpr int kAdds = 4000;
  std::atomic<int> at_work[kKeys] = {};
  std::atomic<int> handled{0};
  std::vector<std::jthread> workers;
  for (int i = 0; i < 4; ++i) {
    workers.emplace_back([&] {
      while (auto key = queue.Get()) {
        const int index = std::stoi(*key);
        EXPECT_EQ(at_work[index].fetch_add(1), 0);
        ++handled;
        at_work[index].fetch_sub(1);
        queue.Done(*key);
      }
    });
  }
  for (int i = 0; i < kAdds; ++i) {
    const std::string key = std::to_string(i % kKeys);
    i % 3 == 0 ? queue.AddAfter(key, 20us)
               : queue.Add(key, i % 2 == 0 ? Priority::kLow : Priority::kNormal);
  }
  while (queue.Depth() > 0 || queue.DelayedCount() > 0) std::this_thread::yield();
  EXPECT_TRUE(queue.ShutDownWithDrain(20s));
  EXPECT_GE(handled.load(), kKeys);
}

}  // namespace
}  // namespace dormouse::kube
