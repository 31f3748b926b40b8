#include "node-agent/host/cgroup.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>

#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"

namespace dormouse::host {
namespace {

using std::chrono::milliseconds;

class CgroupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!IsRoot()) GTEST_SKIP() << "needs root";
    for (const std::string mount_point : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      auto opened = Cgroups::Open({mount_point, slice_, /*require_controllers=*/false});
      if (!opened) continue;
      mount_point_ = mount_point;
      cgroups_.emplace(*std::move(opened));
      return;
    }
    GTEST_SKIP() << "no cgroup2 file system that we may write to";
  }
  void TearDown() override {
    if (!cgroups_) return;
    EXPECT_OK(cgroups_->Kill(name_));
    EXPECT_OK(cgroups_->WaitEmpty(name_, milliseconds(5000)));
    EXPECT_OK(cgroups_->Remove(name_));
    ::rmdir((mount_point_ + "/" + slice_).c_str());
  }
  // A child that is in the group when this returns, and does `work` for ever.
  pid_t StartChildInside(const std::function<void()>& work = [] { ::pause(); }) {
    auto procs = OpenFile(cgroups_->PathOf(name_) + "/cgroup.procs", O_WRONLY);
    if (!procs) return -1;
    int entered[2];
    if (::pipe(entered) != 0) return -1;
    const pid_t pid = ::fork();
    if (pid == 0) {
      if (::write(procs->get(), "0", 1) != 1 || ::write(entered[1], "x", 1) != 1) ::_exit(1);
      for (;;) work();
    }
    char byte = 0;
    EXPECT_EQ(::read(entered[0], &byte, 1), 1);
    ::close(entered[0]);
    ::close(entered[1]);
    return pid;
  }

  const std::string name_ = "t" + std::to_string(::getpid());
  // Not shared with a test beside this one, which would remove it.
  const std::string slice_ = "dormouse-test-" + name_ + ".slice";
  std::string mount_point_;
  std::optional<Cgroups> cgroups_;
};

TEST_F(CgroupTest, ListsKillsAndIsRemovedOnlyWhenEmpty) {
  ASSERT_OK(cgroups_->Create(name_, {256 << 20, 64}));
  ASSERT_OK(cgroups_->Create(name_, {256 << 20, 64}));
  const pid_t child = StartChildInside();
  ASSERT_GT(child, 0);
  EXPECT_THAT(cgroups_->Processes(name_).value(), ::testing::ElementsAre(child));
  EXPECT_EQ(cgroups_->Remove(name_).error().code(), ErrorCode::kBusy);
  EXPECT_EQ(cgroups_->WaitEmpty(name_, milliseconds(1)).error().code(), ErrorCode::kDeadline);
  ASSERT_OK(cgroups_->Kill(name_));
  ASSERT_OK(cgroups_->WaitEmpty(name_, milliseconds(5000)));
  EXPECT_TRUE(cgroups_->Processes(name_).value().empty()) << "a zombie is no process";
  ::waitpid(child, nullptr, 0);
  EXPECT_OK(cgroups_->Remove(name_));
  EXPECT_FALSE(cgroups_->Exists(name_));
}

TEST_F(CgroupTest, WhatIsFrozenStandsStillAndCanBeKilled) {
  ASSERT_OK(cgroups_->Create(name_, {}));
  // It counts as long as it runs.
  auto* const count = static_cast<std::atomic<uint64_t>*>(
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const pid_t child = StartChildInside([count] { ++*count; });
  ASSERT_GT(child, 0);
  ASSERT_OK(cgroups_->Freeze(name_, milliseconds(5000)));
  EXPECT_TRUE(cgroups_->IsFrozen(name_));
  const uint64_t before = *count;
  for (int turns = 0; turns < 10'000; ++turns) ::sched_yield();
  EXPECT_EQ(*count, before) << "it runs";
  ASSERT_OK(cgroups_->Thaw(name_));
  EXPECT_FALSE(cgroups_->IsFrozen(name_));
  EXPECT_TRUE(Eventually([&] { return *count != before; })) << "it does not go on";
  ASSERT_OK(cgroups_->Freeze(name_, milliseconds(5000)));
  ASSERT_OK(cgroups_->Kill(name_));
  EXPECT_OK(cgroups_->WaitEmpty(name_, milliseconds(5000)));
  ::waitpid(child, nullptr, 0);
  ::munmap(count, 4096);
}

TEST_F(CgroupTest, WhatIsNotThereIsEmptyAndGone) {
  EXPECT_TRUE(cgroups_->Processes("absent").value().empty());
  EXPECT_OK(cgroups_->Kill("absent"));
  EXPECT_OK(cgroups_->WaitEmpty("absent", milliseconds(1)));
  EXPECT_OK(cgroups_->Remove("absent"));
  EXPECT_OK(cgroups_->Thaw("absent"));
  EXPECT_FALSE(cgroups_->IsFrozen("absent"));
}

TEST(CgroupsTest, RefusesAnotherFileSystem) {
  EXPECT_EQ(Cgroups::Open({"/tmp", "x.slice", true}).error().code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace dormouse::host
