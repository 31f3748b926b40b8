#include "src/common/kube/controller_loop.h"

#include <gmock/gmock.h>

#include <latch>

namespace dormouse::kube {
namespace {

using namespace std::chrono_literals;

class ControllerLoopTest : public testing::Test {
 protected:
  Result<ReconcileResult> next_ = ReconcileResult::Done();
  bool throws_ = false;
  std::vector<std::string> keys_;
  FakeClock clock_;
  metrics::Registry registry_;
  WorkQueue queue_{{.name = "test", .jitter = 0, .clock = &clock_, .metrics = &registry_}};
  ControllerLoop loop_{
      {.name = "test", .metrics = &registry_}, queue_, [this](const std::string& key) {
        keys_.push_back(key);
        if (throws_) throw std::runtime_error("boom");
        return next_;
      }};
  double Total(const char* result) {
    return registry_
        .MakeCounter("controller_runtime_reconcile_total", "",
                     {{"controller", "test"}, {"result", result}})
        .Value();
  }
};

TEST_F(ControllerLoopTest, SuccessForgetsTheBackOff) {
  next_ = Fail(ErrorCode::kUnavailable, "no answer");
  queue_.Add("ns/a");
  EXPECT_TRUE(loop_.RunOne());
  EXPECT_EQ(queue_.Failures("ns/a"), 1);
  clock_.Advance(1s);
  next_ = ReconcileResult::Done();
  EXPECT_TRUE(loop_.RunOne());
  EXPECT_EQ(queue_.Failures("ns/a"), 0);
  EXPECT_FALSE(loop_.RunOne());
  EXPECT_EQ(Total("error"), 1);
  EXPECT_EQ(Total("success"), 1);
}

TEST_F(ControllerLoopTest, WhatNoQuickRetryHelpsIsTriedSlowlyForEver) {
  for (const Error& refused :
       {Error(ErrorCode::kInvalid, "422"), Error::FromErrno("mkdir", EINVAL),
        Error::FromErrno("clone", EOPNOTSUPP), Error(ErrorCode::kCorrupt, "checksum")}) {
    next_ = Fail(refused);
    queue_.Add("a");
    EXPECT_TRUE(loop_.RunOne());
    for (int time = 0; time < 3; ++time) {
      clock_.Advance(59s);
      EXPECT_FALSE(loop_.RunOne()) << refused.message();
      clock_.Advance(1s);
      EXPECT_TRUE(loop_.RunOne()) << refused.message();
    }
    next_ = ReconcileResult::Done();
    clock_.Advance(60s);
    EXPECT_TRUE(loop_.RunOne());
    EXPECT_FALSE(loop_.RunOne());
  }
  EXPECT_EQ(registry_
                .MakeCounter("controller_runtime_terminal_reconcile_errors_total", "",
                             {{"controller", "test"}})
                .Value(),
            4 * 4);
}

TEST_F(ControllerLoopTest, TheServersRetryAfterIsKept) {
  next_ = Fail(Error(ErrorCode::kUnavailable, "429").WithRetryAfter(7s));
  queue_.Add("a");
  EXPECT_TRUE(loop_.RunOne());
  clock_.Advance(6s);
  EXPECT_FALSE(loop_.RunOne());
  clock_.Advance(1s);
  EXPECT_TRUE(loop_.RunOne());
}

TEST_F(ControllerLoopTest, RequeueAfterComesBackInTime) {
  next_ = ReconcileResult::RequeueAfter(30s);
  queue_.Add("a");
  EXPECT_TRUE(loop_.RunOne());
  clock_.Advance(29s);
  EXPECT_FALSE(loop_.RunOne());
  clock_.Advance(1s);
  EXPECT_TRUE(loop_.RunOne());
  EXPECT_EQ(Total("requeue_after"), 2);
}

TEST_F(ControllerLoopTest, AnExceptionIsAFailureAndNoMore) {
  throws_ = true;
  queue_.Add("a");
  EXPECT_TRUE(loop_.RunOne());
  EXPECT_EQ(queue_.Failures("a"), 1);
  EXPECT_EQ(
      registry_
          .MakeCounter("controller_runtime_reconcile_panics_total", "", {{"controller", "test"}})
          .Value(),
      1);
}

TEST(ControllerLoopThreadsTest, WorkersRunSideBySideAndStopDrains) {
  metrics::Registry registry;
  WorkQueue queue({.name = "threads", .metrics = &registry});
  std::latch both(2);
  std::atomic<int> finished{0};
  ControllerLoop loop({.name = "threads", .workers = 2, .metrics = &registry}, queue,
                      [&](const std::string&) -> Result<ReconcileResult> {
                        both.arrive_and_wait();
                        ++finished;
                        return ReconcileResult::Done();
                      });
  queue.Add("a");
  queue.Add("b");
  loop.Start();
  both.wait();
  EXPECT_TRUE(loop.Stop());
  EXPECT_EQ(finished, 2);
}

}  // namespace
}  // namespace dormouse::kube
