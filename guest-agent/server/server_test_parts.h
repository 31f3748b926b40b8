// What the server's tests share: a host's end of a connection, a machine that remembers, a server
// that runs.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "guest-agent/server/server.h"
#include "src/common/base/unix_socket.h"
#include "src/common/guest/messages.h"

namespace dormouse::guest {

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
    calls.emplace_back("entropy");
    if (entropy_fails) return Fail(ErrorCode::kUnsupported, "no entropy");
    return {};
  }
  Result<void> SetWallTime(int64_t since_1970_ns) override {
    wall_time_ns = since_1970_ns;
    calls.emplace_back("clock");
    return {};
  }
  Result<void> TakeIdentity(const Identity& wanted) override {
    identity = wanted;
    calls.emplace_back("identity");
    if (identity_fails) return Fail(ErrorCode::kNoSpace, "disk is full");
    return {};
  }
  void SyncInChild() override {
    while (sync_hangs) ::pause();
  }
  void Remember(const ServerState& state) override { remembered = state; }
  ServerState Recall() override { return recalls ? remembered : ServerState{}; }
  void PowerOff(bool reboot) override { powered_off.store(reboot ? 2 : 1); }

  std::string hostname;
  std::string entropy;
  int64_t wall_time_ns = 0;
  Identity identity;
  ServerState remembered;
  bool recalls = false;            ///< as one whose memory holds no server
  std::vector<std::string> calls;  ///< in their order
  bool entropy_fails = false;
  bool identity_fails = false;
  bool sync_hangs = false;
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
  void MakeDirectory() {
    char name[] = "/tmp/guest-server-test-XXXXXX";
    if (directory_.empty()) directory_ = ::mkdtemp(name);
  }
  void Serve(ServerOptions options = {}) {
    MakeDirectory();
    path_ = directory_ + "/sock";
    std::filesystem::remove(path_);  // of a server before
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
    }
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }
  Peer Dial() {
    UniqueFd fd = ConnectUnix(path_).value();
    // A peer's reads wait.
    EXPECT_EQ(::fcntl(fd.get(), F_SETFL, 0), 0);
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

}  // namespace dormouse::guest
