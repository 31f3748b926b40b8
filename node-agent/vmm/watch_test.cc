#include "node-agent/vmm/watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "node-agent/vmm/event_test_parts.h"

namespace dormouse::vmm {
namespace {

class WatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/dormouse-watch-XXXXXX";
    directory_ = ::mkdtemp(name);
    std::ofstream(events()).flush();
    auto watch = Watch::Start([this](const std::string& key, const WatchNotice& notice) {
      const std::lock_guard lock(mutex_);
      told_.push_back(key + ":" +
                      (notice.kind == WatchNotice::Kind::kExited
                           ? "exited"
                           : std::string(EventKindName(notice.event.kind))));
      changed_.notify_all();
    });
    ASSERT_TRUE(watch);
    watch_ = std::move(*watch);
  }
  void TearDown() override {
    watch_.reset();
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
    std::filesystem::remove_all(directory_);
  }
  [[nodiscard]] std::string events() const { return directory_ + "/events"; }
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

  std::string directory_;
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
  spec.pidfd = StartProcess();
  ASSERT_TRUE(watch_->Add(std::move(spec)));
  watch_->Remove("a");
  ::kill(child_, SIGKILL);
  Say(EventText("vm", "booted"));
  WatchSpec other;
  other.key = "b";
  other.event_file = events();
  ASSERT_TRUE(watch_->Add(std::move(other)));
  EXPECT_TRUE(Told("b:booted"));
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(told_, std::vector<std::string>{"b:booted"});
}

TEST_F(WatchTest, TheSerialLineIsReadWhenItAppearsAndAgainWhenItBreaks) {
  const std::string path = directory_ + "/serial.sock";
  WatchSpec spec;
  spec.key = "a";
  spec.serial_socket = path;
  ASSERT_TRUE(watch_->Add(std::move(spec)));

  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  for (const std::string line : {"first", "second"}) {
    UniqueFd guest(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(guest);
    ASSERT_GT(::write(guest.get(), line.data(), line.size()), 0);
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (watch_->SerialTail("a", 1) != line && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    EXPECT_EQ(watch_->SerialTail("a", 1), line);
  }
}

TEST_F(WatchTest, AMissingEventFileIsRefused) {
  WatchSpec spec;
  spec.key = "a";
  spec.event_file = directory_ + "/none";
  EXPECT_EQ(watch_->Add(std::move(spec)).error().code(), ErrorCode::kNotFound);
  EXPECT_TRUE(watch_->RecentEvents("a").empty());
}

}  // namespace
}  // namespace dormouse::vmm
