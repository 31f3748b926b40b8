// What a guest may try on the agent, and what it costs: one call that fails in time.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cstring>
#include <functional>
#include <thread>

#include "node-agent/guest/guest_client.h"
#include "node-agent/host/test_support.h"

namespace dormouse {
namespace {

using guest::EncodeFrame;
using guest::FrameType;
using std::chrono::milliseconds;
constexpr milliseconds kTimeout{300};

/// Writes until the peer is gone or `count` bytes are out.
void Flood(int fd, const std::string& bytes, size_t count) {
  for (size_t sent = 0; sent < count;) {
    const ssize_t put = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (put <= 0) return;
    sent += static_cast<size_t>(put);
  }
}

/// Waits until the host has hung up.
void AwaitHangup(int fd) {
  char buffer[4096];
  while (::recv(fd, buffer, sizeof(buffer), 0) > 0) {
  }
}

/// A guest that accepts one connection and does with it what the test says.
class HostileGuest {
 public:
  explicit HostileGuest(std::function<void(int)> script) {
    listener_ = host::WaitingListener(path_);
    thread_ = std::thread([this, script = std::move(script)] {
      const UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (fd) script(fd.get());
    });
  }
  ~HostileGuest() {
    (void)::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  const host::ScratchDirectory directory_;
  const std::string path_ = directory_ / "vsock";
  UniqueFd listener_;
  std::thread thread_;
};

std::function<void(int)> Says(std::string bytes) {
  return [bytes = std::move(bytes)](int fd) {
    Flood(fd, bytes, bytes.size());
    AwaitHangup(fd);
  };
}

const std::string kOk = "OK 5\n";
const std::string kLongHeader("\x40\0\x01\0\x01\0\x01\0", 8);  // 64 KiB + 1

TEST(HostileGuestTest, HealthFailsInTimeAndSaysWhatItSaw) {
  const struct {
    const char* name;
    std::function<void(int)> guest;
    ErrorCode code;
  } cases[] = {
      {"silence", AwaitHangup, ErrorCode::kDeadline},
      {"silence after the handshake", Says(kOk), ErrorCode::kDeadline},
      {"hangs up", [](int) {}, ErrorCode::kUnavailable},
      {"hangs up after the handshake", [](int fd) { Flood(fd, kOk, kOk.size()); },
       ErrorCode::kUnavailable},
      {"endless handshake", [](int fd) { Flood(fd, std::string(4096, 'O'), SIZE_MAX); },
       ErrorCode::kCorrupt},
      {"no handshake", Says("HTTP/1.1 200 OK\r\n"), ErrorCode::kCorrupt},
      {"handshake without a port", Says("OK \n"), ErrorCode::kCorrupt},
      {"handshake with words", Says("OK computer\n"), ErrorCode::kCorrupt},
      {"half a handshake", Says("OK 12"), ErrorCode::kDeadline},
      {"length above the limit", Says(kOk + kLongHeader), ErrorCode::kCorrupt},
      {"half a frame", Says(kOk + EncodeFrame(FrameType::kReply, "{}").substr(0, 9)),
       ErrorCode::kDeadline},
      {"half a frame and gone",
       [](int fd) {
         const std::string bytes = kOk + EncodeFrame(FrameType::kReply, "{}").substr(0, 9);
         Flood(fd, bytes, bytes.size());
         char first = 0;
         (void)::recv(fd, &first, 1, 0);
       },
       ErrorCode::kUnavailable},
      {"garbage", Says(kOk + std::string(100'000, '\xff')), ErrorCode::kCorrupt},
      {"not JSON", Says(kOk + EncodeFrame(FrameType::kReply, "]")), ErrorCode::kCorrupt},
      {"deep JSON", Says(kOk + EncodeFrame(FrameType::kReply, std::string(60'000, '['))),
       ErrorCode::kCorrupt},
      {"wrong types", Says(kOk + EncodeFrame(FrameType::kReply, R"({"agentVersion":[]})")),
       ErrorCode::kCorrupt},
      {"another kind of frame", Says(kOk + EncodeFrame(FrameType::kStdout, "x")),
       ErrorCode::kCorrupt},
      {"an error that calls us corrupt",
       Says(kOk + EncodeFrame(FrameType::kError, R"({"code":"Corrupt","message":"you"})")),
       ErrorCode::kInternal},
      {"an error that is none", Says(kOk + EncodeFrame(FrameType::kError, "{}")),
       ErrorCode::kCorrupt},
      {"endless frames of nothing",
       [](int fd) {
         Flood(fd, kOk, kOk.size());
         Flood(fd, EncodeFrame(FrameType::kStdout, ""), SIZE_MAX);
       },
       ErrorCode::kCorrupt},
  };
  for (const auto& test : cases) {
    HostileGuest guest(test.guest);
    const auto before = std::chrono::steady_clock::now();
    const auto health = GuestClient(host::OwnSocket(guest.path())).Health(kTimeout);
    const auto took = std::chrono::steady_clock::now() - before;
    ASSERT_FALSE(health) << test.name;
    EXPECT_EQ(health.error().code(), test.code) << test.name << ": " << health.error().message();
    EXPECT_LT(health.error().message().size(), 4096U) << test.name;
    EXPECT_LT(took, milliseconds(5'000)) << test.name;
  }
}

TEST(HostileGuestTest, FreezeAndThawFailInTimeAndSayWhatTheySaw) {
  const struct {
    const char* name;
    std::function<void(int)> guest;
    std::optional<ErrorCode> freeze;  ///< none: an answer
    std::optional<ErrorCode> thaw;
  } cases[] = {
      {"hangs up", [](int) {}, ErrorCode::kUnavailable, ErrorCode::kUnavailable},
      {"hangs up after the handshake", [](int fd) { Flood(fd, kOk, kOk.size()); },
       ErrorCode::kUnavailable, ErrorCode::kUnavailable},
      {"silence after the handshake", Says(kOk), ErrorCode::kDeadline, ErrorCode::kDeadline},
      {"an empty answer", Says(kOk + guest::EncodeEmptyReply()), ErrorCode::kCorrupt, {}},
      {"wrong types",
       Says(kOk + EncodeFrame(FrameType::kReply, R"({"frozen":"yes"})")),
       ErrorCode::kCorrupt,
       {}},
      {"an endless detail",
       Says(kOk + EncodeFrame(FrameType::kReply,
                              R"({"frozen":true,"detail":")" + std::string(60'000, 'x') + "\"}")),
       ErrorCode::kCorrupt,
       {}},
      {"another kind of frame", Says(kOk + EncodeFrame(FrameType::kStdout, "x")),
       ErrorCode::kCorrupt, ErrorCode::kCorrupt},
      {"length above the limit", Says(kOk + kLongHeader), ErrorCode::kCorrupt, ErrorCode::kCorrupt},
      {"endless frames of nothing",
       [](int fd) {
         Flood(fd, kOk, kOk.size());
         Flood(fd, EncodeFrame(FrameType::kStdout, ""), SIZE_MAX);
       },
       ErrorCode::kCorrupt, ErrorCode::kCorrupt},
      {"an old guest",
       Says(kOk + guest::EncodeError(Error(ErrorCode::kUnsupported, "request 9 is not known"))),
       ErrorCode::kUnsupported, ErrorCode::kUnsupported},
  };
  for (const auto& test : cases) {
    const auto check = [&](const char* what, const auto& ask,
                           const std::optional<ErrorCode>& wanted) {
      HostileGuest guest(test.guest);
      const auto before = std::chrono::steady_clock::now();
      const auto answer = ask(GuestClient(host::OwnSocket(guest.path())));
      EXPECT_LT(std::chrono::steady_clock::now() - before, milliseconds(5'000)) << test.name;
      EXPECT_EQ(answer.has_value(), !wanted) << what << ": " << test.name;
      if (answer || !wanted) return;
      EXPECT_EQ(answer.error().code(), *wanted) << what << ": " << test.name;
    };
    check(
        "freeze", [](const GuestClient& client) { return client.Freeze(milliseconds(0)); },
        test.freeze);
    check(
        "thaw", [](const GuestClient& client) { return client.Thaw({}, kTimeout); }, test.thaw);
  }
}

TEST(HostileGuestTest, AConnectionThatBreaksRightAfterAWakeIsUnavailableAtOnce) {
  // What a VMM's muxer does right after a restore: it refuses, closes, or resets.
  const std::function<void(int)> breaks[] = {
      [](int) {},
      [](int fd) { (void)::shutdown(fd, SHUT_RDWR); },
      [](int fd) {  // unread bytes at the close: the host reads ECONNRESET
        char first = 0;
        (void)::recv(fd, &first, 1, 0);
      },
      [](int fd) {
        Flood(fd, kOk, kOk.size());
        char first = 0;
        (void)::recv(fd, &first, 1, 0);
      },
  };
  constexpr milliseconds kPatience{30'000};
  for (const auto& how : breaks) {
    HostileGuest guest(how);
    const auto before = std::chrono::steady_clock::now();
    const auto health = GuestClient(host::OwnSocket(guest.path())).Health(kPatience);
    ASSERT_FALSE(health);
    EXPECT_EQ(health.error().code(), ErrorCode::kUnavailable) << health.error().message();
    EXPECT_LT(std::chrono::steady_clock::now() - before, milliseconds(5'000));
  }
  const auto before = std::chrono::steady_clock::now();
  EXPECT_EQ(GuestClient(host::OwnSocket("/tmp/no/such/vsock")).Thaw({}, kPatience).error().code(),
            ErrorCode::kUnavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - before, milliseconds(5'000));
}

TEST(HostileGuestTest, BytesThatDribbleMeetTheDeadline) {
  HostileGuest guest([](int fd) {
    const std::string bytes = kOk + EncodeFrame(FrameType::kReply, std::string(60'000, ' '));
    for (const char c : bytes) {
      if (::send(fd, &c, 1, MSG_NOSIGNAL) <= 0) return;
      timespec pause{0, 1'000'000};
      ::nanosleep(&pause, nullptr);
    }
  });
  EXPECT_EQ(GuestClient(host::OwnSocket(guest.path())).Health(kTimeout).error().code(),
            ErrorCode::kDeadline);
}

/// Answers the exec request, then goes on as the test says.
std::function<void(int)> ExecThen(std::function<void(int)> rest) {
  return [rest = std::move(rest)](int fd) {
    const std::string opening = kOk + guest::EncodeEmptyReply();
    Flood(fd, opening, opening.size());
    rest(fd);
  };
}

guest::ExecRequest Command() {
  guest::ExecRequest request;
  request.process.argv = {"x"};
  request.stdin_open = true;
  return request;
}

TEST(HostileGuestTest, AnExecThatBreaksTheRulesIsOver) {
  const auto window = [](FrameType stream, uint32_t bytes) {
    return guest::EncodeWindow({stream, bytes});
  };
  const struct {
    const char* name;
    std::string bytes;
  } cases[] = {
      {"a second answer", guest::EncodeEmptyReply()},
      {"a request", guest::EncodeHealthRequest()},
      {"empty output", EncodeFrame(FrameType::kStderr, "")},
      {"output after its end",
       EncodeFrame(FrameType::kStdout, "", guest::kFlagEnd) + EncodeFrame(FrameType::kStdout, "x")},
      {"a grant above the limit", window(FrameType::kStdin, 0xffffffff)},
      {"a grant of nothing", window(FrameType::kStdin, 0)},
      {"a grant for its own stream", window(FrameType::kStdout, 5)},
      {"a wrong exit", EncodeFrame(FrameType::kExit, "short")},
      {"an unknown frame", EncodeFrame(static_cast<FrameType>(0xee), "x")},
      {"a length above the limit", kLongHeader},
  };
  for (const auto& test : cases) {
    HostileGuest guest(ExecThen(Says(test.bytes)));
    const auto session =
        GuestClient(host::OwnSocket(guest.path())).OpenExec(Command(), milliseconds(5'000));
    ASSERT_TRUE(session) << test.name;
    const auto event = (*session)->Next(std::chrono::steady_clock::now() + milliseconds(5'000));
    ASSERT_FALSE(event) << test.name;
    EXPECT_EQ(event.error().code(), ErrorCode::kCorrupt) << test.name;
    EXPECT_FALSE((*session)->TryWriteStdin("x")) << test.name;
  }
}

TEST(HostileGuestTest, EndlessStderrIsHeldOneFrameAtATime) {
  HostileGuest guest(ExecThen([](int fd) {
    const std::string frame = EncodeFrame(FrameType::kStderr, std::string(60'000, 'e'));
    char grants[4096];
    while (::send(fd, frame.data(), frame.size(), MSG_NOSIGNAL) > 0) {
      (void)::recv(fd, grants, sizeof(grants), MSG_DONTWAIT);
    }
  }));
  const auto session =
      GuestClient(host::OwnSocket(guest.path())).OpenExec(Command(), milliseconds(5'000));
  ASSERT_TRUE(session);
  // However much it pushes, a caller who reads gets frame after frame, and memory stays where it
  // is.
  for (int i = 0; i < 1000; ++i) {
    const auto event = (*session)->Next(std::chrono::steady_clock::now() + milliseconds(5'000));
    if (!event) break;
    ASSERT_TRUE(*event);
  }
  rusage usage{};
  ASSERT_EQ(::getrusage(RUSAGE_SELF, &usage), 0);
  EXPECT_LT(usage.ru_maxrss, 400 * 1024) << "KiB";
}

TEST(HostileGuestTest, AGuestThatNeverReadsGetsAWindowAndNoMore) {
  HostileGuest guest(ExecThen([](int fd) {
    char first = 0;
    (void)::recv(fd, &first, 1, MSG_PEEK);
    pollfd hangup{fd, POLLRDHUP, 0};
    (void)::poll(&hangup, 1, 300);
  }));
  const auto session =
      GuestClient(host::OwnSocket(guest.path())).OpenExec(Command(), milliseconds(5'000));
  ASSERT_TRUE(session);
  const auto sent = (*session)->TryWriteStdin(std::string(10'000'000, 'x'));
  EXPECT_TRUE(!sent || *sent <= guest::kInitialWindow);
}

}  // namespace
}  // namespace dormouse
