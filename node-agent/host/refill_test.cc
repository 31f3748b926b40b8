#include "node-agent/host/refill.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace dormouse::host {
namespace {

using namespace std::chrono_literals;

class RefillTest : public ::testing::Test {
 protected:
  bool Eventually(int made) {
    const auto until = std::chrono::steady_clock::now() + 10s;
    while (made_ < made && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    return made_ == made;
  }

  std::atomic<int> wanted_{2}, made_{0};
  Refill refill_{{"thing", [this] { return made_ < wanted_; },
                  [this]() -> Result<> {
                    ++made_;
                    return {};
                  }}};
};

TEST_F(RefillTest, MakesWhatIsWantedAndNoMore) {
  refill_.Start();
  EXPECT_TRUE(Eventually(2));
  refill_.Stop();
  EXPECT_EQ(made_, 2);
}

TEST_F(RefillTest, WaitsForTheEndOfAllWork) {
  {
    const Refill::Work outer(&refill_);
    refill_.Start();
    { const Refill::Work inner(&refill_); }
    EXPECT_EQ(made_, 0);
  }
  EXPECT_TRUE(Eventually(2)) << "its end is noticed";
}

TEST_F(RefillTest, StopsWithoutAStartAndTwice) {
  refill_.Stop();
  refill_.Start();
  refill_.Stop();
  refill_.Stop();
}

}  // namespace
}  // namespace dormouse::host
