// What the node agent's tests share: a scratch directory, a wait for what another thread or the
// kernel does, and a reason to skip where the machine has not what a test needs. For tests only.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

#include "node-agent/host/process.h"
#include "node-agent/host/vmm_socket.h"
#include "src/common/base/files.h"
#include "src/common/base/result.h"
#include "src/common/base/unix_socket.h"

namespace dormouse::host {

/// A directory of its own below $DORMOUSE_TEST_DIR, or where it is told; removed with all that is
/// in it.
class ScratchDirectory {
 public:
  explicit ScratchDirectory(const char* below = "/tmp") {
    const char* chosen = std::getenv("DORMOUSE_TEST_DIR");
    path_ = std::string(chosen != nullptr ? chosen : below) + "/dormouse-test-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~ScratchDirectory() { (void)RemoveTree(path_); }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// For as long as it lives no byte of a file is written beyond `bytes` by this process, as on a
/// full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    if (::getrlimit(RLIMIT_FSIZE, &before_) != 0) std::abort();
    const rlimit limit{bytes, before_.rlim_max};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) std::abort();
  }
  ~FileSizeLimit() {
    (void)::setrlimit(RLIMIT_FSIZE, &before_);
    (void)::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  const sighandler_t handler_ = ::signal(SIGXFSZ, SIG_IGN);
};

/// A listener whose accept(2) waits.
inline UniqueFd WaitingListener(const std::string& path) {
  auto listener = ListenUnix(path);
  if (!listener || ::fcntl(listener->get(), F_SETFL, 0) != 0) std::abort();
  return *std::move(listener);
}

/// Looks until it holds; false when it did not within `limit`, which only a failure meets.
inline bool Eventually(const std::function<bool()>& holds,
                       std::chrono::seconds limit = std::chrono::seconds(10)) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::yield();
  }
  return true;
}

/// Of what this process, or a child of it, does: it is in nobody else's way.
inline Jail OwnJail() {
  return {::geteuid(), std::string(CgroupIn(ReadFile("/proc/self/cgroup", 1 << 16).value_or("")))};
}
inline VmmSocket OwnSocket(const std::string& path) {
  return {path, OwnJail()};
}

inline bool IsRoot() {
  return ::geteuid() == 0;
}

template <typename T>
::testing::AssertionResult IsOk(const Result<T>& result) {
  return result ? ::testing::AssertionSuccess()
                : ::testing::AssertionFailure() << result.error().message();
}
#define ASSERT_OK(expr) ASSERT_TRUE(::dormouse::host::IsOk(expr))
#define EXPECT_OK(expr) EXPECT_TRUE(::dormouse::host::IsOk(expr))

}  // namespace dormouse::host
