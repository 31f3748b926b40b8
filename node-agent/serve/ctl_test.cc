#include "node-agent/serve/ctl.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>

#include <cstring>
#include <future>
#include <thread>

#include "guest-agent/server/server.h"
#include "node-agent/guest/guest_client.h"
#include "node-agent/serve/serve_test_parts.h"
#include "src/common/base/files.h"
#include "src/common/guest/messages.h"
#include "tests/fakes/vsock_front.h"

namespace dormouse {
namespace {

struct Pipe {
  Pipe() {
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    read_end = UniqueFd(fds[0]);
    write_end = UniqueFd(fds[1]);
  }
  UniqueFd read_end, write_end;
};

std::string ReadAll(int fd) {
  std::string text;
  char buffer[65536];
  for (;;) {
    const ssize_t got = ::read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer, static_cast<size_t>(got));
  }
}

/// Until `text` was seen or 20 s are over.
std::string ReadUntil(int fd, const std::string& text) {
  std::string seen;
  char buffer[4096];
  while (seen.find(text) == std::string::npos) {
    pollfd polled{fd, POLLIN, 0};
    if (::poll(&polled, 1, 20'000) <= 0) return seen + "(silence)";
    const ssize_t got = ::read(fd, buffer, sizeof(buffer));
    if (got <= 0) return seen + "(end)";
    seen.append(buffer, static_cast<size_t>(got));
  }
  return seen;
}

struct Outcome {
  int code = -1;
  std::string out, err;
};

class CtlTest : public ServeTest {
 protected:
  CtlTest() {
    // Blocked in every thread that is made from here on, so that SignalWatch alone takes them.
    sigset_t signals;
    sigemptyset(&signals);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH})
      sigaddset(&signals, number);
    ::pthread_sigmask(SIG_BLOCK, &signals, &mask_before_);
    (void)::signal(SIGPIPE, SIG_IGN);
    view_.vsock_socket = directory_ / "vsock.sock";
  }
  ~CtlTest() override {
    server_.reset();
    guest_.reset();
    ::pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
  }

  void StartGuest() { guest_.emplace(view_.vsock_socket, guest_machine_); }
  void StartAll() {
    StartGuest();
    StartServer();
  }

  /// Runs ctl to its end with `input` on stdin.
  Outcome Ctl(std::vector<std::string> args, const std::string& input = "") {
    Pipe in, out, err;
    args.insert(args.begin(), {"--socket", socket()});
    auto stdout_text = std::async(std::launch::async, ReadAll, out.read_end.get());
    auto stderr_text = std::async(std::launch::async, ReadAll, err.read_end.get());
    auto writer = std::async(std::launch::async, [&in, &input] {
      (void)WriteAll(in.write_end.get(), input);
      in.write_end.Reset();
    });
    Outcome outcome;
    outcome.code = RunCtl(args, {in.read_end.get(), out.write_end.get(), err.write_end.get()});
    in.read_end.Reset();
    writer.get();
    out.write_end.Reset();
    err.write_end.Reset();
    outcome.out = stdout_text.get();
    outcome.err = stderr_text.get();
    return outcome;
  }

  /// Starts ctl on a thread; its streams are ours to hold.
  std::future<int> Start(std::vector<std::string> args, CtlIo io) {
    args.insert(args.begin(), {"--socket", socket()});
    return std::async(std::launch::async, [args, io] { return RunCtl(args, io); });
  }

  guest::NoMachine guest_machine_;
  std::optional<fakes::GuestBehindVsock> guest_;
  sigset_t mask_before_{};
};

TEST_F(CtlTest, ListIsATableForPeopleAndJsonForPrograms) {
  StartServer();
  const Outcome table = Ctl({"list"});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_EQ(table.out.find("NAMESPACE"), 0U);
  EXPECT_NE(table.out.find("team-a"), std::string::npos);
  const Outcome json = Ctl({"list", "-o", "json"});
  EXPECT_EQ(json.out.find("[\n"), 0U) << json.out;
  EXPECT_NE(json.out.find("\"name\": \"web\""), std::string::npos);
}

TEST_F(CtlTest, ShowSpeaksOfOneSandbox) {
  StartServer();
  EXPECT_EQ(Ctl({"show", "default/web"}).out, "record:\n  name: web\nplan: -> Running\n");
  EXPECT_EQ(Ctl({"show", "web", "-o", "json"}).out,
            "{\"record\":{\"name\":\"web\"},\"plan\":\"-> Running\"}\n");
}

TEST_F(CtlTest, AnUnknownSandboxIsAnsweredWithThoseThatAreHere) {
  StartServer();
  for (const char* verb : {"show", "logs"}) {
    const Outcome outcome = Ctl({verb, "default/wbe"});
    EXPECT_EQ(outcome.code, 255);
    EXPECT_EQ(outcome.err,
              "error: no sandbox default/wbe on this node; it has default/web, team-a/idle\n");
  }
  EXPECT_EQ(Ctl({"exec", "default/wbe", "--", "true"}).code, 255);
  EXPECT_EQ(Ctl({"logs", "--console", "default/wbe"}).code, 255);
}

TEST_F(CtlTest, SweepTellsByItsExitCodeWhetherSomethingIsLeft) {
  StartServer();
  view_.leaks = {{"netns", "1f2e3d4c5b6a", "no record"}};
  const Outcome found = Ctl({"sweep"});
  EXPECT_EQ(found.code, 1);
  EXPECT_NE(found.out.find("1f2e3d4c5b6a"), std::string::npos);
  EXPECT_EQ(Ctl({"sweep", "-o", "json"}).code, 1);
  EXPECT_EQ(Ctl({"sweep", "--remove"}).code, 0);
  EXPECT_EQ(Ctl({"sweep", "-o", "json"}).out, "[]\n");
}

TEST_F(CtlTest, MistakesAreExplained) {
  const Outcome no_agent = Ctl({"list"});
  EXPECT_EQ(no_agent.code, 255);
  EXPECT_NE(no_agent.err.find("is dormouse-agent running on this node?"), std::string::npos)
      << no_agent.err;
  StartServer();
  EXPECT_EQ(Ctl({}).code, 255);
  EXPECT_EQ(Ctl({"frobnicate"}).code, 255);
  EXPECT_EQ(Ctl({"list", "-o", "xml"}).code, 255);
  EXPECT_NE(Ctl({"show", "../etc"}).err.find("is not NAMESPACE/NAME"), std::string::npos);
  EXPECT_NE(Ctl({"exec", "default/web"}).err.find("no command"), std::string::npos);
  EXPECT_NE(Ctl({"exec", "-e", "X", "default/web", "--", "true"}).err.find("not NAME=VALUE"),
            std::string::npos);
  const Outcome help = Ctl({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_NE(help.out.find("sweep"), std::string::npos);
  const Outcome asleep = Ctl({"exec", "team-a/idle", "--", "true"});
  EXPECT_EQ(asleep.code, 255);
  EXPECT_NE(asleep.err.find("does not run"), std::string::npos);
}

TEST_F(CtlTest, ExecGivesTheCommandsStreamsAndExitCode) {
  StartAll();
  const Outcome outcome =
      Ctl({"exec", "default/web", "--", "sh", "-c", "echo out; echo err >&2; exit 7"});
  EXPECT_EQ(outcome.code, 7) << outcome.err;
  EXPECT_EQ(outcome.out, "out\n");
  EXPECT_EQ(outcome.err, "err\n");
  EXPECT_EQ(Ctl({"exec", "default/web", "--", "sh", "-c", "kill -9 $$"}).code, 128 + 9);
  EXPECT_EQ(Ctl({"exec", "default/web", "--", "true"}).code, 0);
}

TEST_F(CtlTest, ACommandThatCannotBeRunEndsAsInAShell) {
  StartAll();
  const Outcome missing = Ctl({"exec", "default/web", "--", "no-such-command"});
  EXPECT_EQ(missing.code, 127);
  EXPECT_NE(missing.err.find("no-such-command"), std::string::npos) << missing.err;
  EXPECT_EQ(Ctl({"exec", "default/web", "--", "/etc/passwd"}).code, 126);
}

TEST_F(CtlTest, ArgumentsAndEnvironmentArriveUntouched) {
  StartAll();
  const Outcome outcome =
      Ctl({"exec", "-e", "GREETING=a b", "-w", "/tmp", "default/web", "--", "sh", "-c",
           "printf '%s|' \"$GREETING\" \"$PWD\" \"$@\"", "sh", "--", "-it", "list", "$x", ""});
  EXPECT_EQ(outcome.out, "a b|/tmp|--|-it|list|$x||") << outcome.err;
}

TEST_F(CtlTest, StdinReachesTheCommandWithItsEnd) {
  StartAll();
  EXPECT_EQ(Ctl({"exec", "-i", "default/web", "--", "cat"}, "hello\n").out, "hello\n");
  EXPECT_EQ(Ctl({"exec", "-i", "default/web", "--", "cat"}, "").code, 0);
  EXPECT_EQ(Ctl({"exec", "default/web", "--", "cat"}, "not asked for").out, "")
      << "without -i there is none";
  const std::string much(3'000'000, 'x');
  EXPECT_EQ(Ctl({"exec", "-i", "default/web", "--", "wc", "-c"}, much).out, "3000000\n");
}

TEST_F(CtlTest, ACommandThatDoesNotReadItsInputStillEnds) {
  StartAll();
  EXPECT_EQ(
      Ctl({"exec", "-i", "default/web", "--", "sh", "-c", "exit 3"}, std::string(1'000'000, 'x'))
          .code,
      3);
}

TEST_F(CtlTest, MuchOutputComesWhole) {
  StartAll();
  const Outcome outcome = Ctl(
      {"exec", "default/web", "--", "sh", "-c", "yes 0123456789 | head -c 8000000; echo x >&2"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out.size(), 8'000'000U);
  EXPECT_EQ(outcome.err, "x\n");
  const std::string much(2'000'000, 'y');
  EXPECT_EQ(Ctl({"exec", "-i", "default/web", "--", "cat"}, much).out, much) << "both ways at once";
}

TEST_F(CtlTest, SignalsGoToTheCommand) {
  StartAll();
  Pipe out, err;
  auto code = Start({"exec", "default/web", "--", "sh", "-c",
                     "trap 'echo got it; exit 42' INT; echo ready; while :; do sleep 1; done"},
                    {-1, out.write_end.get(), err.write_end.get()});
  EXPECT_NE(ReadUntil(out.read_end.get(), "ready").find("ready"), std::string::npos);
  ASSERT_EQ(::kill(::getpid(), SIGINT), 0);
  EXPECT_NE(ReadUntil(out.read_end.get(), "got it").find("got it"), std::string::npos);
  EXPECT_EQ(code.get(), 42);
}

TEST_F(CtlTest, ATerminalIsRawMeanwhileResizedAndRestored) {
  StartAll();
  int master = -1;
  int slave = -1;
  winsize size{24, 80, 0, 0};
  ASSERT_EQ(::openpty(&master, &slave, nullptr, nullptr, &size), 0);
  const UniqueFd user(master);
  const UniqueFd terminal(slave);
  termios before{};
  ::tcgetattr(slave, &before);
  auto code =
      Start({"exec", "-it", "default/web", "--", "sh", "-c",
             "test -t 0 && test -t 1 && stty size && echo ready && read x && stty size && exit 5"},
            {slave, slave, slave});
  const std::string first = ReadUntil(master, "ready");
  EXPECT_NE(first.find("24 80"), std::string::npos) << first;
  termios during{};
  ::tcgetattr(slave, &during);
  EXPECT_EQ(during.c_lflag & (ICANON | ECHO | ISIG), 0U);
  size = {50, 132, 0, 0};
  ASSERT_EQ(::ioctl(master, TIOCSWINSZ, &size), 0);
  ASSERT_EQ(::kill(::getpid(), SIGWINCH), 0);
  ASSERT_TRUE(WriteAll(master, "\r"));
  const std::string second = ReadUntil(master, "50 132");
  EXPECT_NE(second.find("50 132"), std::string::npos) << second;
  EXPECT_EQ(code.get(), 5);
  termios after{};
  ::tcgetattr(slave, &after);
  EXPECT_EQ(after.c_lflag, before.c_lflag);
  EXPECT_EQ(after.c_oflag, before.c_oflag);
}

TEST_F(CtlTest, HangingUpEndsTheCommand) {
  StartAll();
  auto client = StreamSocket::Connect(socket());
  ASSERT_TRUE(client);
  CtlRequest request{.verb = CtlVerb::kExec, .sandbox = {"default", "web"}};
  request.exec = guest::ExecRequest{};
  request.exec->process.argv = {"sh", "-c", "echo $$; exec sleep 1000"};
  client->Queue(*EncodeCtlRequest(request));
  ASSERT_TRUE(client->Flush());
  std::string text;
  while (text.find('\n') == std::string::npos) {
    pollfd polled{client->fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&polled, 1, 20'000), 1);
    ASSERT_TRUE(client->Fill().value());
    for (;;) {
      const auto frame = client->Next();
      ASSERT_TRUE(frame);
      if (!*frame) break;
      if ((*frame)->type == guest::FrameType::kStdout) text.append((*frame)->payload);
    }
  }
  const pid_t pid = std::stoi(text);
  const UniqueFd watched(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  *client = StreamSocket(UniqueFd());
  pollfd gone{watched.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&gone, 1, 20'000), 1) << "the command lives on";
}

TEST_F(CtlTest, GarbageInsteadOfInputEndsThatSessionOnly) {
  StartAll();
  auto client = StreamSocket::Connect(socket());
  ASSERT_TRUE(client);
  client->Queue(
      std::string(
          R"({"verb":"exec","sandbox":"default/web","exec":{"argv":["cat"],"stdin":true}})") +
      "\n");
  client->Queue("this is no frame, and it never was one");
  ASSERT_TRUE(client->Flush());
  char buffer[4096];
  ssize_t got = 1;
  while (got > 0) {
    pollfd polled{client->fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&polled, 1, 20'000), 1);
    got = ::recv(client->fd(), buffer, sizeof(buffer), 0);
  }
  EXPECT_EQ(Ctl({"exec", "default/web", "--", "echo", "fine"}).out, "fine\n");
}

TEST_F(CtlTest, LogsAreTheWorkloadsAndCanBeCutShort) {
  StartAll();
  EXPECT_EQ(Ctl({"logs", "--console", "--tail", "3", "default/web"}).out, "last 3 lines\n");
  const Outcome none = Ctl({"logs", "default/web"});
  EXPECT_EQ(none.code, 0) << none.err;
  EXPECT_EQ(none.out, "");
  GuestClient client(host::OwnSocket(view_.vsock_socket));
  guest::StartWorkloadRequest workload;
  workload.id = "1";
  workload.process.argv = {"sh", "-c", "echo one; echo two; echo three"};
  ASSERT_TRUE(client.StartWorkload(workload, std::chrono::seconds(10)));
  ASSERT_TRUE(client.WorkloadStatus(std::chrono::seconds(10), std::chrono::seconds(10)));
  EXPECT_EQ(Ctl({"logs", "default/web"}).out, "one\ntwo\nthree\n");
  EXPECT_EQ(Ctl({"logs", "-f", "default/web"}).out, "one\ntwo\nthree\n")
      << "it has ended: nothing to wait for";
  EXPECT_EQ(Ctl({"logs", "--tail", "2", "default/web"}).out, "two\nthree\n");
  EXPECT_EQ(Ctl({"logs", "--tail", "0", "default/web"}).out, "");
  EXPECT_EQ(Ctl({"logs", "--tail", "99", "default/web"}).out, "one\ntwo\nthree\n");
  const Outcome asleep = Ctl({"logs", "team-a/idle"});
  EXPECT_EQ(asleep.code, 255);
  EXPECT_NE(asleep.err.find("--console"), std::string::npos) << asleep.err;
}

/// A guest that answers the request properly and then says `words`.
class HostileGuest {
 public:
  HostileGuest(const std::string& path, std::string words)
      : listener_((RemoveFile(path), ListenUnix(path).value())),
        thread_([this, words = std::move(words)] { Serve(words); }) {}

 private:
  void Serve(const std::string& words) {
    pollfd polled{listener_.get(), POLLIN, 0};
    if (::poll(&polled, 1, 20'000) <= 0) return;
    const UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char buffer[65536];
    (void)!::recv(peer.get(), buffer, sizeof(buffer), 0);
    (void)WriteAll(peer.get(), "OK 1\n" + guest::EncodeEmptyReply() + words);
    timeval limit{20, 0};
    (void)::setsockopt(peer.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    while (::recv(peer.get(), buffer, sizeof(buffer), 0) > 0) {
    }
  }
  UniqueFd listener_;
  std::jthread thread_;
};

TEST_F(CtlTest, AGuestThatBreaksTheProtocolCostsOneSession) {
  StartServer();
  using guest::EncodeFrame;
  using guest::FrameType;
  std::string flood;
  for (int i = 0; i < 4; ++i)
    flood += EncodeFrame(FrameType::kStdout, std::string(guest::kMaxPayloadBytes, 'x'));
  for (const std::string& words :
       {std::string("\x81\x00\x01\x00\xff\xff\xff\xff", 8), std::string("HTTP/1.1 200 OK\r\n\r\n"),
        flood, EncodeFrame(FrameType::kStdin, "x"), EncodeFrame(FrameType::kExit, "xx"),
        guest::EncodeWindow({FrameType::kStdin, 0xffffffff}),
        guest::EncodeError(Error(ErrorCode::kCorrupt, "\x1b[2J"))}) {
    const HostileGuest hostile(view_.vsock_socket, words);
    const Outcome outcome = Ctl({"exec", "default/web", "--", "true"});
    EXPECT_EQ(outcome.code, 255);
    EXPECT_NE(outcome.err.find("error: "), std::string::npos);
    EXPECT_EQ(outcome.err.find('\x1b'), std::string::npos);
    EXPECT_EQ(Ctl({"list"}).code, 0);
  }
}

TEST_F(CtlTest, AnAgentThatEndsMidwayIsTold) {
  StartAll();
  Pipe out, err;
  auto code = Start({"exec", "default/web", "--", "sh", "-c", "echo ready; exec sleep 1000"},
                    {-1, out.write_end.get(), err.write_end.get()});
  (void)ReadUntil(out.read_end.get(), "ready");
  server_->Stop();
  EXPECT_EQ(code.get(), 255);
  err.write_end.Reset();
  EXPECT_NE(ReadAll(err.read_end.get()).find("error: "), std::string::npos);
}

}  // namespace
}  // namespace dormouse
