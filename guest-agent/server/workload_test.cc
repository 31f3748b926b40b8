// The workload as the host sees it: started once, watched, stopped, its log read.
#include "guest-agent/server/server_test_parts.h"

namespace dormouse::guest {
namespace {

class WorkloadTest : public ServerTest {};

StartWorkloadRequest Workload(const std::string& id, const std::string& script) {
  StartWorkloadRequest request;
  request.id = id;
  request.process.argv = {"/bin/sh", "-c", script};
  return request;
}

TEST_F(WorkloadTest, AWorkloadRunsOnceAndItsEndIsReported) {
  Serve();
  Peer peer = Dial();
  const auto started = peer.Ask(Encode(Workload("a", "echo hello; echo oops >&2; exit 7")).value());
  ASSERT_EQ(started.type, FrameType::kReply);
  const auto ended = ParseWorkloadStatus(peer.Ask(Encode(WorkloadStatusRequest{10'000})).payload);
  ASSERT_TRUE(ended);
  EXPECT_EQ(ended->state, WorkloadState::kExited);
  EXPECT_EQ(ended->exit.code, 7U);
  EXPECT_GE(ended->finished_at_ms, ended->started_at_ms);
  // A retry of the same start is answered, not obeyed.
  const auto again = ParseWorkloadStatus(peer.Ask(Encode(Workload("a", "exit 8")).value()).payload);
  EXPECT_EQ(again->state, WorkloadState::kExited);
  EXPECT_EQ(again->exit.code, 7U);
  EXPECT_EQ(peer.Ask(Encode(LogsRequest{})).type, FrameType::kReply);
  const auto logs = peer.Finish();
  EXPECT_NE(logs.out.find("hello\n"), std::string::npos);
  EXPECT_NE(logs.out.find("oops\n"), std::string::npos);
}

TEST_F(WorkloadTest, AProgramThatIsNotThereHasEndedAsInAShell) {
  Serve();
  Peer peer = Dial();
  StartWorkloadRequest request;
  request.id = "a";
  request.process.argv = {"/no/such/program"};
  const auto status = ParseWorkloadStatus(peer.Ask(Encode(request).value()).payload);
  ASSERT_TRUE(status);
  EXPECT_EQ(status->state, WorkloadState::kExited);
  EXPECT_EQ(status->exit.code, 127U);
  EXPECT_EQ(status->detail, "run /no/such/program: ENOENT (No such file or directory)");
  const auto health = ParseHealthReply(peer.Ask(EncodeHealthRequest()).payload);
  EXPECT_EQ(health->workload.detail, status->detail);
  request.id = "b";
  request.process.argv = {directory_};
  EXPECT_EQ(ParseWorkloadStatus(peer.Ask(Encode(request).value()).payload)->exit.code, 126U);
  EXPECT_EQ(peer.Ask(Encode(LogsRequest{})).type, FrameType::kReply);
  EXPECT_NE(peer.Finish().out.find("run /no/such/program"), std::string::npos);
}

TEST_F(WorkloadTest, AWorkloadWithoutItsDirectoryDoesNotStart) {
  Serve();
  Peer peer = Dial();
  StartWorkloadRequest request = Workload("a", "true");
  request.process.working_dir = directory_ + "/nothing";
  const auto got = peer.Ask(Encode(request).value());
  ASSERT_EQ(got.type, FrameType::kError);
  EXPECT_EQ(ParseError(got.payload).code(), ErrorCode::kInvalid);
  EXPECT_EQ(ParseHealthReply(peer.Ask(EncodeHealthRequest()).payload)->workload.state,
            WorkloadState::kNone);
}

TEST_F(WorkloadTest, AnotherWorkloadWaitsForTheEndOfTheFirst) {
  Serve();
  Peer peer = Dial();
  ASSERT_EQ(peer.Ask(Encode(Workload("a", "tail -f /dev/null")).value()).type, FrameType::kReply);
  const auto refused = peer.Ask(Encode(Workload("b", "true")).value());
  ASSERT_EQ(refused.type, FrameType::kError);
  EXPECT_EQ(ParseError(refused.payload).code(), ErrorCode::kBusy);
  const auto stopped = ParseWorkloadStatus(peer.Ask(Encode(StopWorkloadRequest{5'000})).payload);
  ASSERT_TRUE(stopped);
  EXPECT_EQ(stopped->exit.signal, uint32_t{SIGTERM});
  const auto second =
      ParseWorkloadStatus(peer.Ask(Encode(Workload("b", "tail -f /dev/null")).value()).payload);
  EXPECT_EQ(second->id, "b");
  EXPECT_EQ(second->state, WorkloadState::kRunning);
}

TEST_F(WorkloadTest, StopKillsWhatDoesNotListen) {
  Serve();
  Peer peer = Dial();
  ASSERT_EQ(peer.Ask(Encode(Workload("a", "trap '' TERM; tail -f /dev/null")).value()).type,
            FrameType::kReply);
  const auto stopped = ParseWorkloadStatus(peer.Ask(Encode(StopWorkloadRequest{50})).payload);
  EXPECT_EQ(stopped->state, WorkloadState::kExited);
}

TEST_F(WorkloadTest, LogsFollowUntilTheEnd) {
  Serve();
  const std::string gate = directory_ + "/gate";
  ASSERT_EQ(::mkfifo(gate.c_str(), 0600), 0);
  const auto start = Encode(Workload("a", "echo first; read x < " + gate + "; echo last >&2"));
  Peer control = Dial();
  Peer logs = Dial();
  ASSERT_EQ(control.Ask(start.value()).type, FrameType::kReply);
  EXPECT_EQ(logs.Ask(Encode(LogsRequest{UINT64_MAX, true})).type, FrameType::kReply);
  EXPECT_EQ(logs.Next()->payload, "first\n");
  const UniqueFd opener(::open(gate.c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::write(opener.get(), "\n", 1), 1);
  EXPECT_EQ(logs.Finish().out, "last\n");
}

TEST_F(WorkloadTest, AFloodOfLogsKeepsTheLastBytes) {
  Serve({.log_bytes = 1000});
  Peer peer = Dial();
  ASSERT_EQ(
      peer.Ask(Encode(Workload("a", "head -c 300000 /dev/zero; echo; echo the end")).value()).type,
      FrameType::kReply);
  (void)peer.Ask(Encode(WorkloadStatusRequest{10'000}));
  EXPECT_EQ(peer.Ask(Encode(LogsRequest{8, false})).type, FrameType::kReply);
  EXPECT_EQ(peer.Finish().out, "the end\n");
}

TEST_F(WorkloadTest, PowerOffStopsTheWorkloadFirst) {
  Serve();
  Peer peer = Dial();
  ASSERT_EQ(peer.Ask(Encode(Workload("a", "tail -f /dev/null")).value()).type, FrameType::kReply);
  EXPECT_EQ(peer.Ask(Encode(PowerOffRequest{true, 5'000})).type, FrameType::kReply);
  const auto ended = ParseWorkloadStatus(peer.Ask(Encode(WorkloadStatusRequest{10'000})).payload);
  EXPECT_EQ(ended->state, WorkloadState::kExited);
  // The observer that turns the machine off was told before the answer went out.
  EXPECT_EQ(machine_.powered_off.load(), 2);
}

// As busybox's `poweroff` asks an init, and `reboot`, and systemd's.
class InitSignalsTest : public ServerTest {
 protected:
  void SetUp() override {
    const sigset_t signals = InitSignals();
    ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &signals, &before_), 0);
    Serve({.is_init = true});
  }
  void TearDown() override {
    ServerTest::TearDown();
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  /// 1 turned off, 2 started anew, 0 neither in a while.
  int After(int signal) {
    machine_.powered_off = 0;
    EXPECT_EQ(::kill(::getpid(), signal), 0);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (machine_.powered_off == 0 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::yield();
    return machine_.powered_off;
  }

 private:
  sigset_t before_{};
};

TEST_F(InitSignalsTest, EachToolsSignalDoesWhatTheToolSays) {
  for (const int signal : {SIGUSR1, SIGUSR2, SIGPWR, SIGRTMIN + 3, SIGRTMIN + 4})
    EXPECT_EQ(After(signal), 1) << signal;
  for (const int signal : {SIGTERM, SIGINT, SIGRTMIN + 5}) EXPECT_EQ(After(signal), 2) << signal;
}

TEST_F(InitSignalsTest, TheWorkloadIsStoppedFirst) {
  Peer peer = Dial();
  ASSERT_EQ(peer.Ask(Encode(Workload("a", "tail -f /dev/null")).value()).type, FrameType::kReply);
  EXPECT_EQ(After(SIGUSR2), 1);
  const auto ended = ParseWorkloadStatus(peer.Ask(Encode(WorkloadStatusRequest{10'000})).payload);
  EXPECT_EQ(ended->state, WorkloadState::kExited);
  EXPECT_EQ(ended->exit.signal, static_cast<uint32_t>(SIGTERM));
}

}  // namespace
}  // namespace dormouse::guest
