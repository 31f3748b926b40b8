// The life of a cell in the pool. Its VMM is a process that sleeps, and what stands around it a
// name in a set.
#include "node-agent/machine/vmm_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <memory>

#include "node-agent/host/test_support.h"

namespace dormouse {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

class VmmPoolTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(2); }
  void TearDown() override {
    pool_->Stop();
    for (const auto& [id, pid] : standing_) End(pid);
  }
  void Open(size_t size) {
    pool_ = std::make_unique<VmmPool>(
        size,
        CellWork{[this]() -> Result<std::string> { return "cell" + std::to_string(++names_); },
                 [this](const std::string& id) { return Make(id); },
                 [this](const std::string& id) { return Remove(id); }});
  }
  Result<ReadyVmm> Make(const std::string& id) {
    EXPECT_TRUE(pool_->Holds(id)) << "a sweep would take it for a leak";
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) ::pause();
    }
    standing_[id] = pid;
    if (broken_) return Fail(ErrorCode::kUnavailable, "it does not answer");
    DORMOUSE_ASSIGN(auto identity, host::IdentityOf(pid));
    DORMOUSE_ASSIGN(auto process, host::Process::Open(identity));
    return ReadyVmm{std::move(process), std::nullopt};
  }
  Result<> Remove(const std::string& id) {
    EXPECT_TRUE(pool_->Holds(id)) << "a sweep would remove it a second time";
    End(standing_.at(id));
    standing_.erase(id);
    return {};
  }
  static void End(pid_t pid) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  void FillUp() {
    while (pool_->ready() < 2) {
      const auto filled = pool_->FillOne();
      ASSERT_TRUE(filled) << filled.error().message();
    }
  }
  // Its corpse stays, as its pid must not become another's.
  void Crash(const std::string& id) {
    ::kill(standing_.at(id), SIGKILL);
    siginfo_t info{};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(standing_.at(id)), &info, WEXITED | WNOWAIT), 0);
  }

  std::map<std::string, pid_t> standing_;
  int names_ = 0;
  bool broken_ = false;
  std::unique_ptr<VmmPool> pool_;
};

TEST_F(VmmPoolTest, IsFilledToItsSizeAndGoesWithItsIdleOnes) {
  FillUp();
  ASSERT_TRUE(pool_->FillOne()) << "full";
  EXPECT_EQ(pool_->ready(), 2U);
  EXPECT_THAT(standing_, SizeIs(2));
  const auto id = pool_->Take();
  ASSERT_TRUE(id);
  pool_->Stop();
  EXPECT_THAT(standing_, SizeIs(1)) << "what is a sandbox's stays";
  EXPECT_TRUE(standing_.contains(*id));
}

TEST_F(VmmPoolTest, OneIsTakenByOneSandboxAndAdoptedOnce) {
  FillUp();
  const auto first = pool_->Take();
  const auto second = pool_->Take();
  ASSERT_TRUE(first && second);
  EXPECT_NE(*first, *second);
  EXPECT_FALSE(pool_->Take()) << "empty";
  EXPECT_TRUE(pool_->Holds(*first)) << "until its record speaks for it";
  const auto process = pool_->Adopt(*first);
  ASSERT_TRUE(process);
  EXPECT_EQ(process->pid, standing_.at(*first));
  EXPECT_FALSE(pool_->Holds(*first));
  EXPECT_FALSE(pool_->Adopt(*first)) << "a process that this pool does not know";
  pool_->Forget(*second);
  EXPECT_FALSE(pool_->Adopt(*second));
}

TEST_F(VmmPoolTest, ADeadOneIsNeverGivenAndIsReplaced) {
  FillUp();
  Crash("cell1");
  EXPECT_EQ(pool_->Take(), "cell2");
  EXPECT_FALSE(pool_->Take());
  FillUp();
  EXPECT_FALSE(standing_.contains("cell1"));
  EXPECT_THAT(standing_, SizeIs(3)) << "two that wait, and the one that was taken";
}

TEST_F(VmmPoolTest, OneThatDiesBeforeItsAdoptionIsNotAdopted) {
  FillUp();
  const auto id = pool_->Take();
  Crash(*id);
  EXPECT_FALSE(pool_->Adopt(*id));
  EXPECT_FALSE(pool_->Holds(*id)) << "its record's by now";
}

TEST_F(VmmPoolTest, OneThatFailsLeavesNothing) {
  broken_ = true;
  EXPECT_FALSE(pool_->FillOne());
  EXPECT_THAT(standing_, IsEmpty());
  EXPECT_EQ(pool_->ready(), 0U);
  EXPECT_FALSE(pool_->Holds("cell1"));
}

TEST_F(VmmPoolTest, ItsThreadFillsItAndAnEmptyPoolHasNone) {
  pool_->Start();
  EXPECT_TRUE(host::Eventually([&] { return pool_->ready() >= 2; }));
  EXPECT_EQ(pool_->ready(), 2U);
  pool_->Stop();
  EXPECT_THAT(standing_, IsEmpty());
  Open(0);
  pool_->Start();
  ASSERT_TRUE(pool_->FillOne());
  EXPECT_EQ(pool_->ready(), 0U);
}

}  // namespace
}  // namespace dormouse
