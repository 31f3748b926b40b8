#include "node-agent/vmm/watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <fstream>
#include <mutex>

#include "node-agent/guest/workload_question.h"
#include "node-agent/host/test_support.h"
#include "node-agent/vmm/event_test_parts.h"
#include "src/common/guest/messages.h"

namespace dormouse::vmm {
namespace {

class WatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(events()).flush();
    StartWatch(Clock::System());
  }
  void StartWatch(const Clock& clock) {
    watch_.reset();
    const auto told = [this](const std::string& key, const WatchNotice& notice) {
      const std::lock_guard lock(mutex_);
      std::string what(EventKindName(notice.event.kind));
      if (notice.kind == WatchNotice::Kind::kExited) what = "exited";
      if (notice.kind == WatchNotice::Kind::kWorkload) what = "workload";
      told_.push_back(key + ":" + what);
      changed_.notify_all();
    };
    auto watch = Watch::Start(told, {}, clock);
    ASSERT_TRUE(watch);
    watch_ = std::move(*watch);
  }
  void TearDown() override {
    watch_.reset();
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
  }
  // A socket in the test's directory; its path goes into `path`.
  UniqueFd Listen(const char* name, std::string* path) {
    *path = directory_ / name;
    return host::WaitingListener(*path);
  }
  // Watches "a", asks its guest, and gives the connection on which that was asked.
  UniqueFd AwaitWorkload(UniqueFd pidfd = {}) {
    WatchSpec spec;
    spec.key = "a";
    spec.pidfd = std::move(pidfd);
    EXPECT_TRUE(watch_->Add(std::move(spec)));
    guest_ = Listen("vsock", &vsock_);
    EXPECT_TRUE(watch_->AwaitWorkload("a", host::OwnSocket(vsock_)));
    UniqueFd peer(::accept4(guest_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char asked[256];
    EXPECT_GT(::recv(peer.get(), asked, sizeof(asked), 0), 0);
    return peer;
  }
  static void Say(const UniqueFd& peer, const std::string& bytes) {
    EXPECT_EQ(::send(peer.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // Waits for the host to hang up.
  static bool HungUp(const UniqueFd& peer) {
    pollfd ready{peer.get(), POLLIN, 0};
    char byte = 0;
    return ::poll(&ready, 1, 10'000) == 1 && ::recv(peer.get(), &byte, 1, 0) == 0;
  }
  [[nodiscard]] std::string events() const { return directory_ / "events"; }
  void Say(const std::string& text) { std::ofstream(events(), std::ios::app) << text; }
  bool Told(const std::string& what) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] {
      return std::find(told_.begin(), told_.end(), what) != told_.end();
    });
  }
  UniqueFd StartProcess() {
    child_ = ::fork();
    if (child_ == 0) {
      for (;;) ::pause();
    }
    return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, child_, 0)));
  }

  const host::ScratchDirectory directory_;
  std::string vsock_;
  UniqueFd guest_;
  FakeClock clock_;
  std::unique_ptr<Watch> watch_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> told_;
  pid_t child_ = -1;
};

TEST_F(WatchTest, EventsBeforeAndAfterTheAddAreTold) {
  Say(EventText("vm", "booting"));
  WatchSpec spec;
  spec.key = "a";
  spec.event_file = events();
  spec.vmm = ::geteuid();
  ASSERT_TRUE(watch_->Add(std::move(spec)));
  EXPECT_TRUE(Told("a:booting"));
  Say(EventText("virtio-device", "reset") + EventText("vm", "booted"));
  EXPECT_TRUE(Told("a:booted"));
  const auto recent = watch_->RecentEvents("a");
  ASSERT_EQ(recent.size(), 2u);
  EXPECT_EQ(recent[1].kind, EventKind::kBooted);
}

TEST_F(WatchTest, DeathIsToldOnceAfterTheLastWords) {
  WatchSpec spec;
  spec.key = "a";
  spec.event_file = events();
  spec.vmm = ::geteuid();
  spec.pidfd = StartProcess();
  ASSERT_TRUE(spec.pidfd);
  ASSERT_TRUE(watch_->Add(std::move(spec)));
  Say(EventText("vm", "shutdown"));
  ::kill(child_, SIGKILL);
  ASSERT_TRUE(Told("a:exited"));
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(told_, (std::vector<std::string>{"a:shutdown", "a:exited"}));
}

TEST_F(WatchTest, AVmmThatIsDeadAlreadyIsTold) {
  WatchSpec spec;
  spec.key = "a";
  spec.pidfd = StartProcess();
  ::kill(child_, SIGKILL);
  siginfo_t info{};
  ::waitid(P_PID, static_cast<id_t>(child_), &info, WEXITED | WNOWAIT);
  ASSERT_TRUE(watch_->Add(std::move(spec)));
  EXPECT_TRUE(Told("a:exited"));
}

TEST_F(WatchTest, WhatIsRemovedIsSilent) {
  WatchSpec spec;
  spec.key = "a";
  spec.event_file = events();
  spec.vmm = ::geteuid();
  spec.pidfd = StartProcess();
  ASSERT_TRUE(watch_->Add(std::move(spec)));
  watch_->Remove("a");
  ::kill(child_, SIGKILL);
  Say(EventText("vm", "booted"));
  WatchSpec other;
  other.key = "b";
  other.event_file = events();
  other.vmm = ::geteuid();
  ASSERT_TRUE(watch_->Add(std::move(other)));
  EXPECT_TRUE(Told("b:booted"));
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(told_, std::vector<std::string>{"b:booted"});
}

TEST_F(WatchTest, TheSerialLineIsReadWhenItAppearsAndAgainWhenItBreaks) {
  WatchSpec spec;
  spec.key = "a";
  spec.serial_socket = host::OwnSocket(directory_ / "serial.sock");
  ASSERT_TRUE(watch_->Add(std::move(spec)));

  std::string path;
  const UniqueFd listener = Listen("serial.sock", &path);
  for (const std::string line : {"first", "second"}) {
    UniqueFd guest(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(guest);
    ASSERT_GT(::write(guest.get(), line.data(), line.size()), 0);
    (void)host::Eventually([&] { return watch_->SerialTail("a", 1) == line; });
    EXPECT_EQ(watch_->SerialTail("a", 1), line);
  }
}

TEST_F(WatchTest, TheEndOfAWorkloadIsToldAndUntilThenNothing) {
  const UniqueFd peer = AwaitWorkload();
  EXPECT_TRUE(watch_->AwaitWorkload("a", host::OwnSocket(vsock_))) << "again";
  Say(peer, "OK 5\n");
  guest::WorkloadStatus status;
  status.state = guest::WorkloadState::kExited;
  Say(peer, guest::EncodeReply(status));
  ASSERT_TRUE(Told("a:workload"));
  EXPECT_TRUE(HungUp(peer));
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(told_, std::vector<std::string>{"a:workload"});
}

TEST_F(WatchTest, AGuestThatBreaksItsConnectionIsTold) {
  AwaitWorkload().Reset();
  EXPECT_TRUE(Told("a:workload"));
}

TEST_F(WatchTest, AGuestIsAskedAgainAfterEachAnswerThatItRuns) {
  StartWatch(clock_);
  UniqueFd peer = AwaitWorkload();
  guest::WorkloadStatus status;
  status.state = guest::WorkloadState::kRunning;
  for (int minute = 0; minute < 3; ++minute) {
    clock_.Advance(std::chrono::seconds(60));
    Say(peer, "OK 5\n" + guest::EncodeReply(status));
    peer = UniqueFd(::accept4(guest_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(peer);
  }
  const std::lock_guard lock(mutex_);
  EXPECT_TRUE(told_.empty());
}

TEST_F(WatchTest, AGuestThatNeverAnswersIsTold) {
  StartWatch(clock_);
  const UniqueFd peer = AwaitWorkload();
  clock_.Advance(WorkloadQuestion::kLimit);
  EXPECT_TRUE(watch_->AwaitWorkload("a", host::OwnSocket(vsock_)))
      << "which makes it look at the clock";
  EXPECT_TRUE(Told("a:workload"));
  EXPECT_TRUE(HungUp(peer));
}

TEST_F(WatchTest, NothingIsOpenToAGuestThatIsNotWaitedForAnyMore) {
  StartWatch(clock_);
  const UniqueFd stopped = AwaitWorkload();
  watch_->StopAwaiting("a");
  EXPECT_TRUE(HungUp(stopped));
  clock_.Advance(WorkloadQuestion::kFirstPause);
  ASSERT_TRUE(watch_->AwaitWorkload("a", host::OwnSocket(vsock_)));
  const UniqueFd removed(::accept4(guest_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  watch_->Remove("a");
  char asked[256];
  EXPECT_GT(::recv(removed.get(), asked, sizeof(asked), 0), 0);
  EXPECT_TRUE(HungUp(removed));
  EXPECT_EQ(watch_->AwaitWorkload("a", host::OwnSocket(vsock_)).error().code(),
            ErrorCode::kNotFound);
  const std::lock_guard lock(mutex_);
  EXPECT_TRUE(told_.empty());
}

TEST_F(WatchTest, AVmmThatDiesTakesTheQuestionWithIt) {
  const UniqueFd peer = AwaitWorkload(StartProcess());
  ::kill(child_, SIGKILL);
  EXPECT_TRUE(Told("a:exited"));
  EXPECT_TRUE(HungUp(peer));
  EXPECT_EQ(watch_->AwaitWorkload("a", host::OwnSocket(vsock_)).error().code(),
            ErrorCode::kNotFound);
}

TEST_F(WatchTest, AMissingEventFileIsRefused) {
  WatchSpec spec;
  spec.key = "a";
  spec.event_file = directory_ / "none";
  spec.vmm = ::geteuid();
  EXPECT_EQ(watch_->Add(std::move(spec)).error().code(), ErrorCode::kNotFound);
  EXPECT_TRUE(watch_->RecentEvents("a").empty());
}

}  // namespace
}  // namespace dormouse::vmm
