#include "node-agent/host/process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ctime>
#include <memory>

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
  /// One whose pid is chosen (clone3(2), set_tid); nothing where that may not be.
  static std::unique_ptr<Child> OfNumber(pid_t pid) {
    clone_args how{};
    how.exit_signal = SIGCHLD;
    how.set_tid = reinterpret_cast<uint64_t>(&pid);
    how.set_tid_size = 1;
    const long made = ::syscall(SYS_clone3, &how, sizeof(how));
    if (made == 0) {
      for (;;) ::pause();
    }
    return made < 0 ? nullptr : std::unique_ptr<Child>(new Child(pid));
  }

 private:
  explicit Child(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

uint64_t TicksSinceBoot() {
  timespec now{};
  (void)::clock_gettime(CLOCK_BOOTTIME, &now);
  const auto hertz = static_cast<uint64_t>(::sysconf(_SC_CLK_TCK));
  return static_cast<uint64_t>(now.tv_sec) * hertz +
         static_cast<uint64_t>(now.tv_nsec) * hertz / 1'000'000'000;
}

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
  EXPECT_TRUE(Process::Open(*identity, OwnJail()));

  ProcessIdentity reused = *identity;
  reused.start_time += 1;
  EXPECT_EQ(Process::Open(reused, OwnJail()).error().code(), ErrorCode::kNotFound);
  ProcessIdentity other_boot = *identity;
  other_boot.boot_id = "00000000-0000-0000-0000-000000000000";
  EXPECT_EQ(Process::Open(other_boot, OwnJail()).error().code(), ErrorCode::kNotFound);
}

TEST(ProcessTest, OneInAnotherCgroupIsRefused) {
  const Child child;
  Jail jail = OwnJail();
  jail.cgroup = "dormouse.slice/0123456789ab";
  EXPECT_EQ(Process::Open(IdentityOf(child.pid()).value(), jail).error().code(),
            ErrorCode::kPermission);
}

TEST(ProcessTest, TheCgroupIsThatOfVersion2) {
  EXPECT_EQ(CgroupIn("12:pids:/a\n0::/dormouse.slice/b\n1:name=systemd:/c\n"), "dormouse.slice/b");
  EXPECT_EQ(CgroupIn("0::/../../dormouse.slice/b\n"), "../../dormouse.slice/b");
  EXPECT_EQ(CgroupIn("12:pids:/0::/a\n"), "");
  EXPECT_EQ(CgroupIn(""), "");
}

// Forked, it has the same at the same address.
char g_secret[] = "the child's";

TEST(ProcessTest, ReadsMemoryAndNothingBeyondIt) {
  const Child child;
  const auto process = Process::Open(IdentityOf(child.pid()).value(), OwnJail());
  ASSERT_TRUE(process) << process.error().message();
  std::string seen(sizeof(g_secret), '\0');
  ASSERT_OK(process->ReadMemory(reinterpret_cast<uint64_t>(g_secret), seen.data(), seen.size()));
  EXPECT_STREQ(seen.c_str(), "the child's");
  EXPECT_FALSE(process->ReadMemory(8, seen.data(), seen.size()));
}

TEST(ProcessTest, ALaterProcessOfTheSameNumberIsNeverRead) {
  auto child = std::make_unique<Child>();
  const pid_t pid = child->pid();
  const auto identity = IdentityOf(pid);
  ASSERT_OK(identity);
  const auto process = Process::Open(*identity, OwnJail());
  ASSERT_OK(process);
  child.reset();
  // Identities are told apart by the clock tick in which they began.
  ASSERT_TRUE(Eventually([&] { return TicksSinceBoot() > identity->start_time; }));
  const auto successor = Child::OfNumber(pid);
  if (!successor) GTEST_SKIP() << "this user cannot choose the number of a process";

  std::string seen(sizeof(g_secret), '\0');
  const auto read =
      process->ReadMemory(reinterpret_cast<uint64_t>(g_secret), seen.data(), seen.size());
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code(), ErrorCode::kUnavailable);
  for (const char* file : {"maps", "pagemap", "mem", "stat"})
    EXPECT_EQ(::open(process->ProcFile(file).c_str(), O_RDONLY | O_CLOEXEC), -1) << file;
  EXPECT_EQ(Process::Open(*identity, OwnJail()).error().code(), ErrorCode::kNotFound);
}

TEST(ProcessTest, WaitsForAnExitAndNoLonger) {
  const Child child;
  auto process = Process::Open(IdentityOf(child.pid()).value(), OwnJail());
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
  const auto process = Process::Open(IdentityOf(orphan).value(), OwnJail());
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
