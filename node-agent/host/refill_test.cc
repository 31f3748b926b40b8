#include "node-agent/host/refill.h"

#include <gtest/gtest.h>

#include <atomic>

#include "node-agent/host/test_support.h"

namespace dormouse::host {
namespace {

class RefillTest : public ::testing::Test {
 protected:
  bool HasMade(int count) {
    return Eventually([&] { return made_ >= count; }) && made_ == count;
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
  EXPECT_TRUE(HasMade(2));
  EXPECT_EQ(made_, 2);
}

TEST_F(RefillTest, WaitsForTheEndOfAllWork) {
  {
    const Refill::Work outer(&refill_);
    refill_.Start();
    { const Refill::Work inner(&refill_); }
    EXPECT_EQ(made_, 0);
  }
  EXPECT_TRUE(HasMade(2)) << "its end is noticed";
}

}  // namespace
}  // namespace dormouse::host
