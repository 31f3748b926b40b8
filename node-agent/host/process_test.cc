#include "node-agent/host/process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node-agent/host/test_support.h"

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

TEST(ProcessTest, AnExitStatusIsToldAlsoOfWhatIsNotOurChild) {
  // The child of a child that is gone: init's, as a VMM is. It lives until its pipe is written to.
  int pids[2], end[2];
  ASSERT_EQ(::pipe(pids), 0);
  ASSERT_EQ(::pipe(end), 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    const pid_t orphan = ::fork();
    if (orphan != 0) {
      (void)!::write(pids[1], &orphan, sizeof(orphan));
      ::_exit(0);
    }
    char byte = 0;
    (void)!::read(end[0], &byte, 1);
    ::_exit(7);
  }
  pid_t orphan = 0;
  ASSERT_EQ(::read(pids[0], &orphan, sizeof(orphan)), static_cast<ssize_t>(sizeof(orphan)));
  ::waitpid(parent, nullptr, 0);
  const auto process = Process::Open(IdentityOf(orphan).value());
  ASSERT_OK(process);
  EXPECT_FALSE(ExitStatusOf(process->pidfd())) << "it runs";
  ASSERT_EQ(::write(end[1], "x", 1), 1);
  ASSERT_OK(process->WaitExit(milliseconds(5000)));
  for (const int fd : {pids[0], pids[1], end[0], end[1]}) ::close(fd);
  // The kernel tells it once init has reaped it.
  std::optional<int> status;
  if (!Eventually([&] { return (status = ExitStatusOf(process->pidfd())).has_value(); }))
    GTEST_SKIP() << "a kernel before Linux 6.15, or an init that does not reap";
  EXPECT_TRUE(WIFEXITED(*status));
  EXPECT_EQ(WEXITSTATUS(*status), 7);
}

}  // namespace
}  // namespace dormouse::host
