#include "node-agent/vmm/api_client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <mutex>
#include <thread>

#include "node-agent/host/test_support.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::vmm {
namespace {

using std::chrono::milliseconds;

// Answers each connection with the next of a list of raw answers, and keeps what it was asked.
class ScriptedVmm {
 public:
  explicit ScriptedVmm(std::vector<std::string> answers) : answers_(std::move(answers)) {
    listener_ = host::WaitingListener(path());
    thread_ = std::thread([this] { Serve(); });
  }
  ~ScriptedVmm() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  [[nodiscard]] std::string path() const { return directory_ / "api.sock"; }
  [[nodiscard]] host::VmmSocket socket() const { return host::OwnSocket(path()); }
  [[nodiscard]] const std::string& directory() const { return directory_.path(); }
  // What the last finished exchange was asked; valid once its answer has been seen.
  std::string asked() {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  void Serve() {
    for (const std::string& answer : answers_) {
      UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!peer) return;
      std::string request;
      char block[4096];
      size_t body_at = std::string::npos;
      size_t length = 0;
      while (body_at == std::string::npos || request.size() < body_at + length) {
        const ssize_t got = ::read(peer.get(), block, sizeof(block));
        if (got <= 0) break;
        request.append(block, static_cast<size_t>(got));
        if (body_at == std::string::npos && request.find("\r\n\r\n") != std::string::npos) {
          body_at = request.find("\r\n\r\n") + 4;
          const auto header = request.find("Content-Length: ");
          if (header != std::string::npos) length = std::stoul(request.substr(header + 16));
        }
      }
      {
        const std::lock_guard lock(mutex_);
        asked_ = request;
      }
      (void)!::write(peer.get(), answer.data(), answer.size());
      if (answer.empty())
        (void)!::read(peer.get(), block, sizeof(block));  // silent until the client gives up
    }
  }

  std::vector<std::string> answers_;
  const host::ScratchDirectory directory_;
  UniqueFd listener_;
  std::mutex mutex_;
  std::string asked_;
  std::thread thread_;
};

std::string Answer(int status, const std::string& body) {
  return "HTTP/1.1 " + std::to_string(status) +
         " \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\nContent-Type: "
         "application/json\r\n"
         "Content-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body;
}

constexpr const char* k204 =
    "HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n";
constexpr const char* kPing =
    R"({"build_version":"v53.0","version":"53.0.0","pid":4711,"features":["io_uring","kvm"]})";

TEST(ApiClientTest, PingTellsTheVersion) {
  ScriptedVmm vmm({Answer(200, kPing)});
  const auto ping = ApiClient(vmm.socket()).Ping();
  ASSERT_TRUE(ping) << ping.error().message();
  EXPECT_EQ(ping->version.Short(), "53.0");
  EXPECT_EQ(ping->pid, 4711);
  EXPECT_TRUE(vmm.asked().starts_with("GET /api/v1/vmm.ping HTTP/1.1\r\n"));
}

TEST(ApiClientTest, ANoContentAnswerWithoutAReasonOrALengthIsSuccess) {
  ScriptedVmm vmm({k204, k204, k204});
  const ApiClient api(vmm.socket());
  EXPECT_TRUE(api.Pause());
  // A bodyless PUT: any body is answered with 400.
  EXPECT_TRUE(vmm.asked().starts_with("PUT /api/v1/vm.pause HTTP/1.1\r\n"));
  EXPECT_TRUE(vmm.asked().ends_with("\r\n\r\n"));
  EXPECT_EQ(vmm.asked().find("Transfer-Encoding"), std::string::npos);
  EXPECT_TRUE(api.Resume());
  EXPECT_TRUE(api.Delete());
}

TEST(ApiClientTest, OrdersAreNotGivenToWhoeverListens) {
  ScriptedVmm vmm({});
  host::VmmSocket of_another = vmm.socket();
  of_another.jail.cgroup += "/another";
  const auto refused = ApiClient(of_another).Pause();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kPermission);
  EXPECT_EQ(vmm.asked(), "");
}

TEST(ApiClientTest, CreateSendsTheConfigWithItsLength) {
  ScriptedVmm vmm({k204});
  VmConfig config;
  config.payload.kernel = "/a/vmlinuz";
  config.payload.initramfs = "/a/initrd";
  config.disk.path = "/dev/x";
  config.vsock.socket = "/r/v";
  config.serial_socket = "/r/s";
  ASSERT_TRUE(ApiClient(vmm.socket()).Create(config));
  const std::string body = *ToJson(config);
  EXPECT_NE(vmm.asked().find("Content-Length: " + std::to_string(body.size()) + "\r\n"),
            std::string::npos);
  EXPECT_TRUE(vmm.asked().ends_with("\r\n\r\n" + body));
}

TEST(ApiClientTest, ABadConfigNeverReachesTheVmm) {
  const auto refused = ApiClient(host::OwnSocket("/nonexistent/api.sock")).Create(VmConfig{});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kInvalid);
  EXPECT_NE(refused.error().message().find("payload.kernel is missing"), std::string::npos);
}

std::string CreatedWith(const std::string& config) {
  return Answer(200, R"({"config":)" + config + R"(,"state":"Created","memory_actual_size":1})");
}
constexpr const char* kWhole = R"({"disks":[{}],"net":[{}],"vsock":{}})";

TEST(ApiClientTest, BootRunsWhatCreateMade) {
  ScriptedVmm vmm({CreatedWith(kWhole), k204});
  EXPECT_TRUE(ApiClient(vmm.socket()).Boot());
  EXPECT_TRUE(vmm.asked().starts_with("PUT /api/v1/vm.boot HTTP/1.1\r\n"));
}

TEST(ApiClientTest, ARefusedBootIsDeletedAsItLostADevice) {
  ScriptedVmm vmm({CreatedWith(kWhole),
                   Answer(500, R"(["Error from API","The VM could not boot","x"])"), k204});
  const auto boot = ApiClient(vmm.socket()).Boot();
  ASSERT_FALSE(boot);
  EXPECT_EQ(boot.error().message(), "vm.boot: HTTP 500: The VM could not boot: x");
  EXPECT_TRUE(vmm.asked().starts_with("PUT /api/v1/vm.delete"));
}

TEST(ApiClientTest, AConfigThatLostItsDiskIsNeverBooted) {
  ScriptedVmm vmm({CreatedWith(R"({"net":[{}],"vsock":{}})"), k204});
  const auto boot = ApiClient(vmm.socket()).Boot();
  ASSERT_FALSE(boot);
  EXPECT_TRUE(boot.error().IsRetryable());
  EXPECT_TRUE(vmm.asked().starts_with("PUT /api/v1/vm.delete"));
}

TEST(ApiClientTest, ARunningVmIsNeverDeletedForASecondBootOrCreate) {
  ScriptedVmm vmm(
      {Answer(200, R"({"config":{},"state":"Running"})"),
       Answer(500, R"(["Error from API","The VM could not boot","VM is already created"])"),
       Answer(500, R"(["Error from API","The VM could not be created","VM is already created"])")});
  const ApiClient api(vmm.socket());
  EXPECT_FALSE(api.Boot());
  EXPECT_TRUE(vmm.asked().starts_with("PUT /api/v1/vm.boot"));
  VmConfig config;
  config.payload = {"/a/vmlinuz", "/a/initrd", ""};
  config.disk.path = "/dev/x";
  config.vsock.socket = "/r/v";
  config.serial_socket = "/r/s";
  EXPECT_FALSE(api.Create(config));
  EXPECT_TRUE(vmm.asked().starts_with("PUT /api/v1/vm.create"));
}

TEST(ApiClientTest, ARefusalCarriesItsCauses) {
  ScriptedVmm vmm(
      {Answer(404, R"(["Error from API","The VM info is not available","VM is not created"])")});
  const auto info = ApiClient(vmm.socket()).Info();
  ASSERT_FALSE(info);
  EXPECT_EQ(info.error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(info.error().message(),
            "vm.info: HTTP 404: The VM info is not available: VM is not created");
}

TEST(ApiClientTest, NoVmmIsUnavailableAndNotNoVm) {
  const auto info = ApiClient(host::OwnSocket("/nonexistent/api.sock")).Info();
  ASSERT_FALSE(info);
  EXPECT_EQ(info.error().code(), ErrorCode::kUnavailable);
}

TEST(ApiClientTest, ASilentVmmEndsAtTheTimeout) {
  ScriptedVmm vmm({""});
  ApiTimeouts timeouts;
  timeouts.query = milliseconds(50);
  const auto ping = ApiClient(vmm.socket(), timeouts).Ping();
  ASSERT_FALSE(ping);
  EXPECT_EQ(ping.error().code(), ErrorCode::kDeadline);
}

TEST(ApiClientTest, AVmmThatDiedAtItsStartIsToldAtOnce) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(1);
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  ASSERT_TRUE(pidfd);
  const auto ready = ApiClient(host::OwnSocket("/nonexistent/api.sock"))
                         .AwaitReady(std::chrono::minutes(5), pidfd.get());
  ASSERT_FALSE(ready);
  EXPECT_EQ(ready.error().code(), ErrorCode::kUnavailable);
  EXPECT_NE(ready.error().message().find("exited"), std::string::npos);
  ::waitpid(child, nullptr, 0);
}

TEST(ApiClientTest, AVmmIsFoundAsSoonAsItsSocketIsThere) {
  // A socket that comes before the first look, between it and the wait, or during the wait.
  constexpr int kRounds = 20;
  ScriptedVmm vmm(std::vector<std::string>(kRounds, Answer(200, kPing)));
  for (int round = 0; round < kRounds; ++round) {
    const std::string socket = vmm.directory() + "/" + std::to_string(round) + ".sock";
    std::thread appears([&] { EXPECT_EQ(::link(vmm.path().c_str(), socket.c_str()), 0); });
    const auto ready = ApiClient(host::OwnSocket(socket)).AwaitReady(std::chrono::minutes(1));
    appears.join();
    ASSERT_TRUE(ready) << ready.error().message();
    EXPECT_EQ(ready->pid, 4711);
  }
}

TEST(ApiClientTest, AwaitReadyEndsAtItsLimit) {
  const auto ready =
      ApiClient(host::OwnSocket("/nonexistent/api.sock")).AwaitReady(milliseconds(20));
  ASSERT_FALSE(ready);
  EXPECT_EQ(ready.error().code(), ErrorCode::kDeadline);
}

TEST(ApiClientTest, StateOnlySnapshotSucceedsByExactlyOneFailure) {
  const std::string expected =
      R"(["Error from API","The VM could not be snapshotted","Error sending VM snapshot",)"
      R"("Failed to send migratable component snapshot","Error creating memory snapshot file \"/x\"",)"
      R"_("File exists (os error 17)"])_";
  ScriptedVmm vmm({Answer(500, expected),
                   Answer(500, R"_(["Error from API","File exists (os error 17)"])_"), k204});
  const ApiClient api(vmm.socket());
  const std::string memory = vmm.directory() + "/memory-ranges";

  const auto done =
      api.SnapshotStateOnly(vmm.directory(), host::Directory::Open(vmm.directory()).value());
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(std::filesystem::file_size(memory), 0u);

  for (int answer = 0; answer < 2; ++answer) {
    std::filesystem::remove(memory);
    const auto other =
        api.SnapshotStateOnly(vmm.directory(), host::Directory::Open(vmm.directory()).value());
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code(), ErrorCode::kUnsupported);
  }
}

TEST(ApiClientTest, ASnapshotWithoutRoomIsNoSpaceWhicheverWayItWasAskedFor) {
  const auto refusal = [](const std::string& what, const std::string& why) {
    return Answer(
        500, R"(["Error from API","The VM could not be snapshotted","Cannot send VM snapshot",)"
             R"("Failed to send migratable component snapshot",")" +
                 what + "\",\"" + why + "\"]");
  };
  // As v53.0 and what it writes memory with (vm-memory 0.17) put it.
  ScriptedVmm vmm(
      {refusal("Error creating VM config snapshot file", "No space left on device (os error 28)"),
       refusal("Error writing VM state snapshot", "Disk quota exceeded (os error 122)"),
       refusal("Error writing dense memory snapshot region",
               "Guest memory error: No space left on device (os error 28)")});
  const ApiClient api(vmm.socket());
  for (int answer = 0; answer < 2; ++answer) {
    std::filesystem::remove(vmm.directory() + "/memory-ranges");
    const auto state_only =
        api.SnapshotStateOnly(vmm.directory(), host::Directory::Open(vmm.directory()).value());
    ASSERT_FALSE(state_only);
    EXPECT_EQ(state_only.error().code(), ErrorCode::kNoSpace);
  }
  const auto stock = api.Snapshot(vmm.directory());
  ASSERT_FALSE(stock);
  EXPECT_EQ(stock.error().code(), ErrorCode::kNoSpace);
  EXPECT_TRUE(stock.error().message().ends_with("No space left on device (os error 28)"))
      << stock.error().message();
}

TEST(ApiClientTest, RestoreAsksForACopy) {
  ScriptedVmm vmm({k204});
  ASSERT_TRUE(ApiClient(vmm.socket()).Restore({"/g/1", true}));
  EXPECT_TRUE(vmm.asked().ends_with(
      R"({"memory_restore_mode":"Copy","resume":true,"source_url":"file:///g/1"})"));
}

TEST(ApiClientTest, AnswersThatBreakThePromiseAreCorrupt) {
  for (const char* body : {"", "[]", "{", "{}", R"({"config":{},"state":"Sleeping"})",
                           R"({"config":1,"state":"Running"})", R"({"state":"Running"})"}) {
    const auto info = ParseVmInfo(body);
    ASSERT_FALSE(info) << body;
    EXPECT_EQ(info.error().code(), ErrorCode::kCorrupt);
  }
  for (const char* body :
       {"", "{}", R"({"version":53})", R"({"build_version":"v53.0","version":"x"})"}) {
    EXPECT_FALSE(ParsePing(body)) << body;
  }
}

TEST(ApiClientTest, InfoIsRead) {
  const auto info =
      ParseVmInfo(R"({"config":{"a":1},"state":"Paused","memory_actual_size":536870912,"new":1})");
  ASSERT_TRUE(info);
  EXPECT_EQ(info->state, VmState::kPaused);
  EXPECT_EQ(info->memory_actual_bytes, 512 * kMiB);
  EXPECT_EQ(info->config_json, R"({"a":1})");
}

}  // namespace
}  // namespace dormouse::vmm
