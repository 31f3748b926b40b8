#include "node-agent/host/vmm_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node-agent/host/test_support.h"

namespace dormouse::host {
namespace {

class VmmSocketTest : public ::testing::Test {
 protected:
  // Who listens at `path` is another process, of this uid; it lives as long as the test.
  void ListenAs(uid_t uid, const std::string& path) {
    ASSERT_EQ(::chmod(scratch_.path().c_str(), 0777), 0);
    int ready[2];
    ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    const UniqueFd in(ready[0]);
    UniqueFd out(ready[1]);
    other_ = ::fork();
    if (other_ == 0) {
      if (::setresuid(uid, uid, uid) != 0) ::_exit(1);
      const auto listener = ListenUnix(path);
      if (!listener || ::write(out.get(), "r", 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    out.Reset();
    char byte = 0;
    ASSERT_EQ(::read(in.get(), &byte, 1), 1);
    ASSERT_EQ(::chmod(path.c_str(), 0666), 0);
  }
  void TearDown() override {
    if (other_ <= 0) return;
    ::kill(other_, SIGKILL);
    ::waitpid(other_, nullptr, 0);
  }
  static ErrorCode CodeOf(const VmmSocket& socket) {
    const auto connected = ConnectVmm(socket);
    return connected ? ErrorCode::kInternal : connected.error().code();
  }

  const ScratchDirectory scratch_;
  const std::string path_ = scratch_ / "vsock.sock";
  pid_t other_ = 0;
};

TEST_F(VmmSocketTest, ConnectsToTheProcessThatIsMeant) {
  const auto listener = ListenUnix(path_);
  ASSERT_OK(listener);
  const auto connected = ConnectVmm(OwnSocket(path_));
  ASSERT_OK(connected);
  ASSERT_EQ(::send(connected->get(), "x", 1, MSG_NOSIGNAL), 1);
  const UniqueFd peer(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  char byte = 0;
  EXPECT_EQ(::recv(peer.get(), &byte, 1, 0), 1);
}

TEST_F(VmmSocketTest, ALinkToAnotherSocketIsNotFollowed) {
  const auto another = ListenUnix(scratch_ / "another");
  ASSERT_OK(another);
  for (const std::string& target : {scratch_ / "another", std::string("another")}) {
    ASSERT_EQ(::symlink(target.c_str(), path_.c_str()), 0);
    EXPECT_EQ(CodeOf(OwnSocket(path_)), ErrorCode::kPermission) << target;
    ASSERT_OK(RemoveFile(path_));
  }
}

TEST_F(VmmSocketTest, AnotherUidsListenerIsRefused) {
  if (!IsRoot()) GTEST_SKIP() << "needs root";
  constexpr uid_t kVmm = 100021;
  constexpr uid_t kAnother = 100022;
  ListenAs(kAnother, path_);
  VmmSocket socket = OwnSocket(path_);
  socket.jail.uid = kVmm;
  EXPECT_EQ(CodeOf(socket), ErrorCode::kPermission);
  socket.jail.uid = kAnother;
  EXPECT_OK(ConnectVmm(socket));
}

TEST_F(VmmSocketTest, AListenerInAnotherCgroupIsRefused) {
  const auto listener = ListenUnix(path_);
  ASSERT_OK(listener);
  VmmSocket socket = OwnSocket(path_);
  socket.jail.cgroup = "dormouse.slice/0123456789ab";
  EXPECT_EQ(CodeOf(socket), ErrorCode::kPermission);
}

TEST_F(VmmSocketTest, WhatIsNoSocketIsRefusedAndNotOpened) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0666), 0);
  EXPECT_EQ(CodeOf(OwnSocket(path_)), ErrorCode::kPermission);
  ASSERT_OK(RemoveFile(path_));
  ASSERT_OK(MakeDirectories(path_));
  EXPECT_EQ(CodeOf(OwnSocket(path_)), ErrorCode::kPermission);
}

TEST_F(VmmSocketTest, NobodyListeningIsUnavailable) {
  EXPECT_EQ(CodeOf(OwnSocket(path_)), ErrorCode::kUnavailable);
  { ASSERT_OK(ListenUnix(path_)); }
  EXPECT_EQ(CodeOf(OwnSocket(path_)), ErrorCode::kUnavailable);
  EXPECT_EQ(CodeOf(OwnSocket(scratch_ / "none/vsock.sock")), ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace dormouse::host
