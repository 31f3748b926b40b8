#include "guest-agent/server/server.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "src/common/guest/messages.h"

namespace dormouse::guest {
namespace {

using std::chrono::milliseconds;

/// Remembers what it was asked for.
class RecordingMachine : public NoMachine {
 public:
  Result<void> SetHostname(const std::string& name) override {
    hostname = name;
    return {};
  }
  Result<void> AddEntropy(std::string_view bytes) override {
    entropy = bytes;
    if (entropy_fails) return Fail(ErrorCode::kUnsupported, "no entropy");
    return {};
  }
  void PowerOff(bool reboot) override { powered_off.store(reboot ? 2 : 1); }

  std::string hostname;
  std::string entropy;
  bool entropy_fails = false;
  std::atomic<int> powered_off{0};
};

/// The host's end of one connection, with raw bytes in its hands. Every wait has a limit.
class Peer {
 public:
  explicit Peer(UniqueFd fd) : fd_(std::move(fd)) {}

  void Send(std::string_view bytes) {
    (void)!::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  struct Got {
    FrameType type{};
    uint8_t flags = 0;
    std::string payload;
  };
  /// Nothing at the end of the stream, or when nothing came in time.
  std::optional<Got> Next(milliseconds limit = milliseconds(10'000)) {
    for (;;) {
      const auto frame = decoder_.Next();
      EXPECT_TRUE(frame.has_value());
      if (!frame) return std::nullopt;
      if (*frame) return Got{(*frame)->type, (*frame)->flags, std::string((*frame)->payload)};
      if (!Read(limit)) return std::nullopt;
    }
  }
  Got Ask(std::string_view request) {
    Send(request);
    return Next().value_or(Got{});
  }
  bool Closed() {
    while (Read(milliseconds(10'000))) {
    }
    return eof_;
  }
  /// Runs the stream to its exit, granting what it reads.
  struct Outcome {
    std::string out, err;
    std::optional<ExitStatus> exit;
  };
  Outcome Finish() {
    Outcome outcome;
    while (const auto got = Next()) {
      if (got->type == FrameType::kExit) {
        outcome.exit = DecodeExit(got->payload).value();
        return outcome;
      }
      if (got->type == FrameType::kStdout) outcome.out += got->payload;
      if (got->type == FrameType::kStderr) outcome.err += got->payload;
      if (!got->payload.empty() && got->type != FrameType::kWindow) {
        Send(EncodeWindow({got->type, static_cast<uint32_t>(got->payload.size())}));
      }
    }
    return outcome;
  }
  std::string ReadLine() {
    std::string line;
    char c = 0;
    while (line.size() < 100 && WaitReadable(milliseconds(10'000)) &&
           ::recv(fd_.get(), &c, 1, 0) == 1) {
      if (c == '\n') return line;
      line.push_back(c);
    }
    return line;
  }

 private:
  bool WaitReadable(milliseconds limit) {
    pollfd wait{fd_.get(), POLLIN, 0};
    return ::poll(&wait, 1, static_cast<int>(limit.count())) == 1;
  }
  bool Read(milliseconds limit) {
    if (!WaitReadable(limit)) return false;
    char buffer[8192];
    const ssize_t got = ::recv(fd_.get(), buffer, sizeof(buffer), 0);
    if (got <= 0) {
      eof_ = true;
      return false;
    }
    decoder_.Append({buffer, static_cast<size_t>(got)});
    return true;
  }
  UniqueFd fd_;
  FrameDecoder decoder_;
  bool eof_ = false;
};

class ServerTest : public testing::Test {
 protected:
  void Serve(ServerOptions options = {}) {
    char name[] = "/tmp/guest-server-test-XXXXXX";
    directory_ = ::mkdtemp(name);
    path_ = directory_ + "/sock";
    auto server = Server::Create(ListenUnix(path_).value(), machine_, std::move(options));
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
    thread_ = std::thread([this] { server_->Run(); });
  }
  void TearDown() override {
    if (server_) {
      server_->Stop();
      thread_.join();
      server_.reset();
      std::filesystem::remove_all(directory_);
    }
  }
  Peer Dial() {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return Peer(std::move(fd));
  }
  /// Starts `argv` and checks the answer.
  Peer Exec(ExecRequest request) {
    Peer peer = Dial();
    EXPECT_EQ(peer.Ask(Encode(request).value()).type, FrameType::kReply);
    return peer;
  }
  static ExecRequest Shell(const std::string& script) {
    ExecRequest request;
    request.process.argv = {"/bin/sh", "-c", script};
    return request;
  }

  RecordingMachine machine_;
  std::string directory_;
  std::string path_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

TEST_F(ServerTest, AnswersHealthManyTimesOnOneConnection) {
  Serve({.agent_version = "7"});
  Peer peer = Dial();
  for (int i = 0; i < 3; ++i) {
    const auto got = peer.Ask(EncodeHealthRequest());
    ASSERT_EQ(got.type, FrameType::kReply);
    EXPECT_EQ(ParseHealthReply(got.payload)->agent_version, "7");
  }
}

TEST_F(ServerTest, StandsInForAVmmsSocket) {
  Serve({.hybrid = true});
  Peer peer = Dial();
  peer.Send("CONNECT 1024\n" + EncodeHealthRequest());
  EXPECT_TRUE(peer.ReadLine().starts_with("OK "));
  EXPECT_EQ(peer.Next()->type, FrameType::kReply);
  for (const std::string line : {"CONNECT 1025\n", "GET / HTTP/1.1\n", "\n"}) {
    Peer other = Dial();
    other.Send(line);
    EXPECT_TRUE(other.Closed()) << line;
  }
  Peer endless = Dial();
  endless.Send("CONNECT 1024" + std::string(4096, ' '));
  EXPECT_TRUE(endless.Closed());
}

TEST_F(ServerTest, ConfiguresTheMachineAndKeepsTheDefaults) {
  Serve();
  ConfigureRequest request;
  request.hostname = "sbx";
  request.entropy = std::string(32, 'e');
  request.env = {{"GREETING", "hello"}};
  request.working_dir = "/usr";
  Peer peer = Dial();
  ASSERT_EQ(peer.Ask(Encode(request).value()).type, FrameType::kReply);
  EXPECT_EQ(machine_.hostname, "sbx");
  EXPECT_EQ(machine_.entropy, std::string(32, 'e'));
  EXPECT_TRUE(ParseHealthReply(peer.Ask(EncodeHealthRequest()).payload)->configured);
  ExecRequest exec = Shell("echo $GREETING $EXTRA $PWD");
  exec.process.env = {{"EXTRA", "world"}};
  EXPECT_EQ(Exec(exec).Finish().out, "hello world /usr\n");
}

TEST_F(ServerTest, AConfigurationThatFailedIsNotTaken) {
  Serve();
  machine_.entropy_fails = true;
  ConfigureRequest request;
  request.entropy = std::string(32, 'e');
  Peer peer = Dial();
  const auto got = peer.Ask(Encode(request).value());
  ASSERT_EQ(got.type, FrameType::kError);
  EXPECT_EQ(ParseError(got.payload).code(), ErrorCode::kUnsupported);
  EXPECT_FALSE(ParseHealthReply(peer.Ask(EncodeHealthRequest()).payload)->configured);
  request = {};
  request.user = "nobody-of-that-name";
  EXPECT_EQ(peer.Ask(Encode(request).value()).type, FrameType::kError);
}

TEST_F(ServerTest, ExecGivesOutputErrorAndExitCode) {
  Serve();
  const auto outcome = Exec(Shell("echo out; echo err >&2; exit 3")).Finish();
  EXPECT_EQ(outcome.out, "out\n");
  EXPECT_EQ(outcome.err, "err\n");
  ASSERT_TRUE(outcome.exit);
  EXPECT_EQ(outcome.exit->code, 3U);
}

TEST_F(ServerTest, ExecPassesStdinAndItsEnd) {
  Serve();
  ExecRequest request = Shell("cat; echo done");
  request.stdin_open = true;
  Peer peer = Exec(request);
  peer.Send(EncodeFrame(FrameType::kStdin, "one\n"));
  peer.Send(EncodeFrame(FrameType::kStdin, "two\n", kFlagEnd));
  EXPECT_EQ(peer.Finish().out, "one\ntwo\ndone\n");
}

TEST_F(ServerTest, ExecWithoutStdinSeesItsEndAtOnce) {
  Serve();
  EXPECT_EQ(Exec(Shell("cat; echo done")).Finish().out, "done\n");
}

TEST_F(ServerTest, AProgramThatIsNotThereIsSaidBeforeAnyStream) {
  Serve();
  ExecRequest request;
  request.process.argv = {"no-such-program"};
  Peer peer = Dial();
  const auto got = peer.Ask(Encode(request).value());
  ASSERT_EQ(got.type, FrameType::kError);
  const Error error = ParseError(got.payload);
  EXPECT_EQ(error.code(), ErrorCode::kNotFound);
  EXPECT_NE(error.message().find("no-such-program"), std::string::npos);
  request.process = {{"/bin/true"}, {}, "/no/such/dir", ""};
  EXPECT_EQ(ParseError(peer.Ask(Encode(request).value()).payload).code(), ErrorCode::kNotFound);
}

TEST_F(ServerTest, ASignalReachesTheCommandAndEndsInItsStatus) {
  Serve();
  ExecRequest request = Shell("echo ready; tail -f /dev/null");
  Peer peer = Exec(request);
  EXPECT_EQ(peer.Next()->payload, "ready\n");
  peer.Send(EncodeSignal(SIGTERM));
  EXPECT_EQ(peer.Finish().exit->signal, uint32_t{SIGTERM});
}

TEST_F(ServerTest, ATerminalHasItsSizeAndEchoes) {
  Serve();
  ExecRequest request = Shell("test -t 0 && test -t 1 && stty size; read x; stty size; exit 5");
  request.tty = true;
  request.stdin_open = true;
  request.size = {40, 100};
  Peer peer = Exec(request);
  EXPECT_EQ(peer.Next()->payload, "40 100\r\n");
  peer.Send(EncodeResize({50, 120}));
  peer.Send(EncodeFrame(FrameType::kStdin, "go\n"));
  const auto outcome = peer.Finish();
  EXPECT_EQ(outcome.out, "go\r\n50 120\r\n");
  EXPECT_EQ(outcome.exit->code, 5U);
}

TEST_F(ServerTest, MegabytesOfOutputArriveWhole) {
  Serve();
  const auto outcome =
      Exec(Shell("head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2")).Finish();
  EXPECT_EQ(outcome.out.size(), 5'000'000U);
  EXPECT_EQ(outcome.err.size(), 3'000'000U);
  EXPECT_TRUE(outcome.exit);
}

TEST_F(ServerTest, NoMoreOutputComesThanWasGranted) {
  Serve();
  Peer peer = Exec(Shell("head -c 5000000 /dev/zero"));
  size_t got = 0;
  while (got < kInitialWindow) {
    const auto frame = peer.Next();
    ASSERT_TRUE(frame);
    got += frame->payload.size();
  }
  EXPECT_EQ(got, kInitialWindow);
  EXPECT_FALSE(peer.Next(milliseconds(100)));
  peer.Send(EncodeWindow({FrameType::kStdout, 1000}));
  EXPECT_EQ(peer.Next()->payload.size(), 1000U);
}

TEST_F(ServerTest, ABackgroundProcessDoesNotHoldTheExit) {
  Serve();
  const auto outcome = Exec(Shell("tail -f /dev/null & echo $!")).Finish();
  ASSERT_TRUE(outcome.exit);
  EXPECT_EQ(outcome.exit->code, 0U);
  (void)::kill(std::stoi(outcome.out), SIGKILL);
}

TEST_F(ServerTest, ABackgroundFloodDoesNotHoldTheExit) {
  Serve();
  const auto outcome = Exec(Shell("yes & exit 4")).Finish();
  ASSERT_TRUE(outcome.exit);
  EXPECT_EQ(outcome.exit->code, 4U);
}

TEST_F(ServerTest, TheCommandGoesWithTheConnection) {
  Serve();
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd read_end(fds[0]);
  {
    UniqueFd write_end(fds[1]);
    ASSERT_EQ(::fcntl(write_end.get(), F_SETFD, 0),
              0);  // the command inherits it: its end is seen here
    Peer peer = Exec(Shell("echo ready; tail -f /dev/null"));
    EXPECT_EQ(peer.Next()->payload, "ready\n");
  }
  pollfd gone{read_end.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&gone, 1, 10'000), 1);
}

TEST_F(ServerTest, HostileBytesCostOneConnectionAndNothingElse) {
  Serve();
  const struct {
    const char* name;
    std::string bytes;
  } cases[] = {
      {"text", "GET / HTTP/1.1\r\n\r\n"},
      {"length above the limit", std::string("\x01\0\x01\0\xff\xff\xff\xff", 8)},
      {"another version", std::string("\x01\0\x09\0\0\0\0\0", 8)},
      {"endless", std::string(100'000, '\xff')},
  };
  for (const auto& test : cases) {
    Peer peer = Dial();
    peer.Send(test.bytes);
    const auto got = peer.Next();
    EXPECT_EQ(got ? got->type : FrameType::kError, FrameType::kError) << test.name;
    EXPECT_EQ(Dial().Ask(EncodeHealthRequest()).type, FrameType::kReply) << test.name;
  }
}

TEST_F(ServerTest, WrongRequestsAreAnsweredAndTheConnectionGoesOn) {
  Serve();
  Peer peer = Dial();
  for (const FrameType type :
       {FrameType::kExec, FrameType::kStartWorkload, FrameType::kConfigure, FrameType::kStdin,
        FrameType::kReply, static_cast<FrameType>(0x3f)}) {
    EXPECT_EQ(peer.Ask(EncodeFrame(type, "]")).type, FrameType::kError);
  }
  EXPECT_EQ(peer.Ask(EncodeHealthRequest()).type, FrameType::kReply);
}

TEST_F(ServerTest, MoreStdinThanTheWindowEndsTheConnection) {
  Serve();
  ExecRequest request = Shell("tail -f /dev/null");
  request.stdin_open = true;
  Peer peer = Exec(request);
  for (size_t sent = 0; sent <= kInitialWindow + 70'000; sent += 8192) {
    peer.Send(EncodeFrame(FrameType::kStdin, std::string(8192, 'x')));
  }
  std::optional<Peer::Got> last;
  for (;;) {
    const auto got = peer.Next();
    if (!got || got->type == FrameType::kError) {
      last = got;
      break;
    }
  }
  ASSERT_TRUE(last);
  EXPECT_EQ(ParseError(last->payload).code(), ErrorCode::kInternal);
}

TEST_F(ServerTest, SilenceIsClosed) {
  Serve({.idle_limit = milliseconds(50), .first_request_limit = milliseconds(50)});
  EXPECT_TRUE(Dial().Closed());
  Peer dribble = Dial();
  dribble.Send("\x01");
  EXPECT_TRUE(dribble.Closed());
  Peer idle = Dial();
  EXPECT_EQ(idle.Ask(EncodeHealthRequest()).type, FrameType::kReply);
  EXPECT_TRUE(idle.Closed());
}

TEST_F(ServerTest, ConnectionsAreBounded) {
  Serve({.max_connections = 2});
  Peer first = Dial();
  Peer second = Dial();
  EXPECT_EQ(first.Ask(EncodeHealthRequest()).type, FrameType::kReply);
  EXPECT_EQ(second.Ask(EncodeHealthRequest()).type, FrameType::kReply);
  EXPECT_TRUE(Dial().Closed());
}

StartWorkloadRequest Workload(const std::string& id, const std::string& script) {
  StartWorkloadRequest request;
  request.id = id;
  request.process.argv = {"/bin/sh", "-c", script};
  return request;
}

TEST_F(ServerTest, AWorkloadRunsOnceAndItsEndIsReported) {
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

TEST_F(ServerTest, AnotherWorkloadWaitsForTheEndOfTheFirst) {
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

TEST_F(ServerTest, StopKillsWhatDoesNotListen) {
  Serve();
  Peer peer = Dial();
  ASSERT_EQ(peer.Ask(Encode(Workload("a", "trap '' TERM; tail -f /dev/null")).value()).type,
            FrameType::kReply);
  const auto stopped = ParseWorkloadStatus(peer.Ask(Encode(StopWorkloadRequest{50})).payload);
  EXPECT_EQ(stopped->state, WorkloadState::kExited);
}

TEST_F(ServerTest, LogsFollowUntilTheEnd) {
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

TEST_F(ServerTest, AFloodOfLogsKeepsTheLastBytes) {
  Serve({.log_bytes = 1000});
  Peer peer = Dial();
  ASSERT_EQ(
      peer.Ask(Encode(Workload("a", "head -c 300000 /dev/zero; echo; echo the end")).value()).type,
      FrameType::kReply);
  (void)peer.Ask(Encode(WorkloadStatusRequest{10'000}));
  EXPECT_EQ(peer.Ask(Encode(LogsRequest{8, false})).type, FrameType::kReply);
  EXPECT_EQ(peer.Finish().out, "the end\n");
}

TEST_F(ServerTest, PowerOffStopsTheWorkloadFirst) {
  Serve();
  Peer peer = Dial();
  ASSERT_EQ(peer.Ask(Encode(Workload("a", "tail -f /dev/null")).value()).type, FrameType::kReply);
  EXPECT_EQ(peer.Ask(Encode(PowerOffRequest{true, 5'000})).type, FrameType::kReply);
  const auto ended = ParseWorkloadStatus(peer.Ask(Encode(WorkloadStatusRequest{10'000})).payload);
  EXPECT_EQ(ended->state, WorkloadState::kExited);
  // The observer that turns the machine off was told before the answer went out.
  EXPECT_EQ(machine_.powered_off.load(), 2);
}

TEST_F(ServerTest, AdoptsAConnection) {
  Serve();
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  Peer peer{UniqueFd(fds[0])};
  server_->Adopt(UniqueFd(fds[1]));
  EXPECT_EQ(peer.Ask(EncodeHealthRequest()).type, FrameType::kReply);
}

}  // namespace
}  // namespace dormouse::guest
