// Connections, configuration, exec, and what a hostile host may try.
#include "guest-agent/server/server_test_parts.h"

namespace dormouse::guest {
namespace {

TEST_F(ServerTest, AnswersHealthManyTimesOnOneConnection) {
  Serve({.agent_version = "7"});
  Peer peer = Dial();
  for (int i = 0; i < 3; ++i) {
    const auto got = peer.Ask(EncodeHealthRequest());
    ASSERT_EQ(got.type, FrameType::kReply);
    EXPECT_EQ(ParseHealthReply(got.payload)->agent_version, "7");
  }
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
}

TEST_F(ServerTest, AnUnknownUserOrAMissingDirectoryIsTheRequestsFault) {
  Serve();
  Peer peer = Dial();
  ConfigureRequest request;
  request.user = "nobody-of-that-name";
  auto got = peer.Ask(Encode(request).value());
  ASSERT_EQ(got.type, FrameType::kError);
  EXPECT_EQ(ParseError(got.payload).code(), ErrorCode::kInvalid);
  EXPECT_EQ(ParseError(got.payload).message(),
            "user: no user \"nobody-of-that-name\" in /etc/passwd");
  request = {};
  request.working_dir = directory_ + "/nothing";
  got = peer.Ask(Encode(request).value());
  ASSERT_EQ(got.type, FrameType::kError);
  EXPECT_EQ(ParseError(got.payload).code(), ErrorCode::kInvalid);
  EXPECT_EQ(ParseError(got.payload).message().substr(0, 12), "workingDir: ");
  EXPECT_FALSE(ParseHealthReply(peer.Ask(EncodeHealthRequest()).payload)->configured);
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
  EXPECT_EQ(ParseError(peer.Ask(Encode(request).value()).payload).code(), ErrorCode::kInvalid);
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

TEST_F(ServerTest, OneConnectionTooManyClosesTheOldestIdleOne) {
  Serve({.max_connections = 2});
  Peer first = Dial();
  Peer second = Dial();
  EXPECT_EQ(first.Ask(EncodeHealthRequest()).type, FrameType::kReply);
  EXPECT_EQ(second.Ask(EncodeHealthRequest()).type, FrameType::kReply);
  EXPECT_EQ(Dial().Ask(EncodeHealthRequest()).type, FrameType::kReply);
  EXPECT_TRUE(first.Closed());
  EXPECT_EQ(second.Ask(EncodeHealthRequest()).type, FrameType::kReply);
}

TEST_F(ServerTest, BusyConnectionsAreBounded) {
  Serve({.max_connections = 2});
  Peer first = Exec(Shell("tail -f /dev/null"));
  Peer second = Exec(Shell("tail -f /dev/null"));
  EXPECT_TRUE(Dial().Closed());
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
