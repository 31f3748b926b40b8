#include "node-agent/host/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace dormouse::host {
namespace {

using std::chrono::milliseconds;

// A child that sleeps until it is killed.
class Child {
 public:
  Child() : pid_(::fork()) {
    if (pid_ == 0) {
      for (;;) ::pause();
    }
  }
  ~Child() {
    ::kill(pid_, SIGKILL);
    Reap();
  }
  void Reap() const { ::waitpid(pid_, nullptr, 0); }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(ProcessTest, NameWithParenthesesAndSpacesDoesNotShiftTheFields) {
  const auto stat = ParseProcessStat(
      "77 (a) S 1) (b) R 1 77 77 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 1 0 987654 1000 10 "
      "18446744073709551615");
  ASSERT_TRUE(stat) << stat.error().message();
  EXPECT_EQ(stat->state, 'R');
  EXPECT_EQ(stat->start_time, 987654U);
  EXPECT_FALSE(ParseProcessStat(""));
  EXPECT_FALSE(ParseProcessStat("77 (a) S 1 2"));
}

TEST(ProcessTest, FindsItselfByIdentityOnly) {
  const Child child;
  auto identity = IdentityOf(child.pid());
  ASSERT_TRUE(identity) << identity.error().message();
  EXPECT_TRUE(Process::Open(*identity));

  ProcessIdentity reused = *identity;
  reused.start_time += 1;
  EXPECT_EQ(Process::Open(reused).error().code(), ErrorCode::kNotFound);
  ProcessIdentity other_boot = *identity;
  other_boot.boot_id = "00000000-0000-0000-0000-000000000000";
  EXPECT_EQ(Process::Open(other_boot).error().code(), ErrorCode::kNotFound);
}

TEST(ProcessTest, WaitsForAnExitAndNoLonger) {
  const Child child;
  auto process = Process::Open(IdentityOf(child.pid()).value());
  ASSERT_TRUE(process) << process.error().message();
  EXPECT_EQ(process->WaitExit(milliseconds(1)).error().code(), ErrorCode::kDeadline);
  EXPECT_FALSE(process->HasExited());
  ASSERT_TRUE(process->Signal(SIGKILL));
  EXPECT_TRUE(process->WaitExit(milliseconds(5000)));
  EXPECT_TRUE(process->HasExited());
  // A zombie: it cannot do anything any more, so it is no process.
  EXPECT_EQ(IdentityOf(child.pid()).error().code(), ErrorCode::kNotFound);
  child.Reap();
  EXPECT_TRUE(process->Signal(SIGKILL)) << "a signal to what has gone is success";
}

}  // namespace
}  // namespace dormouse::host
