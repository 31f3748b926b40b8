// The client against the real server of the guest, as the fake VMM runs it.
#include "node-agent/guest/guest_client.h"

#include <gtest/gtest.h>

#include <csignal>
#include <optional>

#include "guest-agent/server/server.h"
#include "node-agent/host/test_support.h"
#include "tests/fakes/vsock_front.h"

namespace dormouse {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kLimit{10'000};

class GuestClientTest : public testing::Test {
 protected:
  void SetUp() override { StartServer(); }
  void StartServer() {
    guest::ServerOptions options;
    options.agent_version = "1.2.3";
    guest_.emplace(path_, machine_, options);
  }
  void StopServer() { guest_.reset(); }
  static guest::ExecRequest Shell(const std::string& script) {
    guest::ExecRequest request;
    request.process.argv = {"/bin/sh", "-c", script};
    return request;
  }
  static Deadline Soon() { return std::chrono::steady_clock::now() + kLimit; }

  guest::NoMachine machine_;
  const host::ScratchDirectory directory_;
  const std::string path_ = directory_ / "vsock";
  std::optional<fakes::GuestBehindVsock> guest_;
};

TEST_F(GuestClientTest, AHealthyGuestAnswers) {
  const auto health = GuestClient(host::OwnSocket(path_)).Health(kLimit);
  ASSERT_TRUE(health) << health.error().message();
  EXPECT_EQ(health->agent_version, "1.2.3");
  EXPECT_EQ(health->workload.state, guest::WorkloadState::kNone);
}

TEST_F(GuestClientTest, AnAbsentGuestIsUnavailable) {
  StopServer();
  const GuestClient client(host::OwnSocket(path_));
  EXPECT_EQ(client.Health(kLimit).error().code(), ErrorCode::kUnavailable);
  EXPECT_EQ(GuestClient(host::OwnSocket(directory_ / "nothing")).Health(kLimit).error().code(),
            ErrorCode::kUnavailable);
  StartServer();
  EXPECT_TRUE(client.Health(kLimit));
}

TEST_F(GuestClientTest, WhatSomebodyElseListensOnIsNotTheGuest) {
  host::VmmSocket of_another = host::OwnSocket(path_);
  ++of_another.jail.uid;
  EXPECT_EQ(GuestClient(of_another).Health(kLimit).error().code(), ErrorCode::kPermission);
}

TEST_F(GuestClientTest, RunsACommandToItsEnd) {
  const auto session =
      GuestClient(host::OwnSocket(path_)).OpenExec(Shell("echo out; echo err >&2; exit 9"), kLimit);
  ASSERT_TRUE(session) << session.error().message();
  std::string out;
  std::string err;
  for (;;) {
    const auto event = (*session)->Next(Soon());
    ASSERT_TRUE(event && *event);
    if ((*event)->kind == GuestEvent::Kind::kExit) {
      EXPECT_EQ((*event)->exit.ShellCode(), 9);
      break;
    }
    ((*event)->kind == GuestEvent::Kind::kStdout ? out : err) += (*event)->data;
  }
  EXPECT_EQ(out, "out\n");
  EXPECT_EQ(err, "err\n");
}

TEST_F(GuestClientTest, WhyACommandDoesNotStartComesBack) {
  guest::ExecRequest request;
  request.process.argv = {"no-such-program"};
  const auto session = GuestClient(host::OwnSocket(path_)).OpenExec(request, kLimit);
  ASSERT_FALSE(session);
  EXPECT_EQ(session.error().code(), ErrorCode::kNotFound);
  request.process.argv = {"/bin/true"};
  request.process.user = "no-such-user";
  EXPECT_EQ(GuestClient(host::OwnSocket(path_)).OpenExec(request, kLimit).error().code(),
            ErrorCode::kNotFound);
}

TEST_F(GuestClientTest, MegabytesOfInputComeBackUnchanged) {
  guest::ExecRequest request = Shell("cat");
  request.stdin_open = true;
  const auto session = GuestClient(host::OwnSocket(path_)).OpenExec(request, kLimit);
  ASSERT_TRUE(session);
  std::string sent(3'000'000, '\0');
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 2654435761U >> 24);
  std::thread writer([&] {
    EXPECT_TRUE((*session)->WriteStdin(sent, Soon()));
    EXPECT_TRUE((*session)->CloseStdin());
  });
  std::string got;
  bool exited = false;
  while (!exited) {
    const auto event = (*session)->Next(Soon());
    ASSERT_TRUE(event && *event);
    exited = (*event)->kind == GuestEvent::Kind::kExit;
    got += (*event)->data;
  }
  writer.join();
  EXPECT_TRUE(got == sent);
  EXPECT_EQ((*session)->Next(Soon()).error().code(), ErrorCode::kCancelled);
}

TEST_F(GuestClientTest, OneThreadCanDriveBothWays) {
  guest::ExecRequest request = Shell("wc -c");
  request.stdin_open = true;
  const auto session = GuestClient(host::OwnSocket(path_)).OpenExec(request, kLimit);
  ASSERT_TRUE(session);
  const std::string sent(1'000'000, 'x');
  std::string_view left = sent;
  std::string got;
  for (;;) {
    const auto taken = (*session)->TryWriteStdin(left);
    ASSERT_TRUE(taken);
    left.remove_prefix(*taken);
    if (left.empty()) break;
    const auto event = (*session)->Next(Soon());
    ASSERT_TRUE(event && *event);
  }
  ASSERT_TRUE((*session)->CloseStdin());
  for (;;) {
    const auto event = (*session)->Next(Soon());
    ASSERT_TRUE(event && *event);
    if ((*event)->kind == GuestEvent::Kind::kExit) break;
    got += (*event)->data;
  }
  EXPECT_EQ(std::stoi(got), 1'000'000);
}

TEST_F(GuestClientTest, InputForACommandThatDoesNotReadIsBounded) {
  guest::ExecRequest request = Shell("tail -f /dev/null");
  request.stdin_open = true;
  const auto session = GuestClient(host::OwnSocket(path_)).OpenExec(request, kLimit);
  ASSERT_TRUE(session);
  const auto deadline = std::chrono::steady_clock::now() + milliseconds(200);
  std::thread reader([&] { (void)(*session)->Next(deadline); });
  const auto written = (*session)->WriteStdin(std::string(10'000'000, 'x'), deadline);
  reader.join();
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code(), ErrorCode::kDeadline);
}

TEST_F(GuestClientTest, ATerminalIsResizedAndInterrupted) {
  guest::ExecRequest request =
      Shell("trap 'stty size; exit 6' WINCH; echo ready; while :; do read x; done");
  request.tty = true;
  request.stdin_open = true;
  const auto session = GuestClient(host::OwnSocket(path_)).OpenExec(request, kLimit);
  ASSERT_TRUE(session);
  EXPECT_EQ((**(*session)->Next(Soon())).data, "ready\r\n");
  ASSERT_TRUE((*session)->Resize({33, 77}));
  std::string got;
  for (;;) {
    const auto event = (*session)->Next(Soon());
    ASSERT_TRUE(event && *event);
    if ((*event)->kind == GuestEvent::Kind::kExit) {
      EXPECT_EQ((*event)->exit.code, 6U);
      break;
    }
    got += (*event)->data;
  }
  EXPECT_NE(got.find("33 77"), std::string::npos);
}

TEST_F(GuestClientTest, ASignalEndsTheCommand) {
  const auto session =
      GuestClient(host::OwnSocket(path_)).OpenExec(Shell("echo ready; tail -f /dev/null"), kLimit);
  ASSERT_TRUE(session);
  EXPECT_EQ((**(*session)->Next(Soon())).data, "ready\n");
  ASSERT_TRUE((*session)->Signal(SIGKILL));
  EXPECT_EQ((**(*session)->Next(Soon())).exit.ShellCode(), 128 + SIGKILL);
}

TEST_F(GuestClientTest, AbortWakesWhoeverWaits) {
  const auto session =
      GuestClient(host::OwnSocket(path_)).OpenExec(Shell("tail -f /dev/null"), kLimit);
  ASSERT_TRUE(session);
  std::thread stopper([&] { (*session)->Abort(); });
  EXPECT_FALSE((*session)->Next(Soon()));
  stopper.join();
}

TEST_F(GuestClientTest, AGuestIsFrozenAndThawedAndRefusesCommandsBetween) {
  const GuestClient client(host::OwnSocket(path_));
  const auto frozen = client.Freeze(kLimit);
  ASSERT_TRUE(frozen) << frozen.error().message();
  EXPECT_TRUE(frozen->frozen) << frozen->detail;
  EXPECT_TRUE(client.Health(kLimit)->frozen);
  const auto refused = client.OpenExec(Shell("true"), kLimit);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kUnavailable);
  EXPECT_NE(refused.error().message().find("frozen"), std::string::npos);
  guest::ThawRequest thaw;
  thaw.is_resume = true;
  EXPECT_EQ(client.Thaw(thaw, kLimit).error().code(), ErrorCode::kInvalid) << "no entropy";
  thaw.entropy = std::string(32, 'e');
  thaw.new_identity = guest::Identity{"clone", std::string(32, 'a')};
  EXPECT_TRUE(client.Thaw(thaw, kLimit));
  EXPECT_FALSE(client.Health(kLimit)->frozen);
  EXPECT_TRUE(client.OpenExec(Shell("true"), kLimit));
}

TEST_F(GuestClientTest, AWorkloadIsConfiguredStartedFollowedAndAsked) {
  const GuestClient client(host::OwnSocket(path_));
  guest::ConfigureRequest configure;
  configure.hostname = "a";
  configure.env = {{"WHO", "dormouse"}};
  ASSERT_TRUE(client.Configure(configure, kLimit));
  guest::StartWorkloadRequest start;
  start.id = "uid-0";
  start.process.argv = {"/bin/sh", "-c", "echo $WHO; exit 2"};
  ASSERT_TRUE(client.StartWorkload(start, kLimit));
  const auto status = client.WorkloadStatus(kLimit, kLimit);
  ASSERT_TRUE(status) << status.error().message();
  EXPECT_EQ(status->state, guest::WorkloadState::kExited);
  EXPECT_EQ(status->exit.code, 2U);
  const auto logs = client.OpenLogs({}, kLimit);
  ASSERT_TRUE(logs);
  EXPECT_EQ((**(*logs)->Next(Soon())).data, "dormouse\n");
  EXPECT_EQ((**(*logs)->Next(Soon())).kind, GuestEvent::Kind::kExit);
}

}  // namespace
}  // namespace dormouse
