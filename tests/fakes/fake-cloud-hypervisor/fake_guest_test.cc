// The fake guest's moods, as the agent would meet them: through the room `vmm` and the vsock
// socket.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "node-agent/guest/guest_client.h"
#include "node-agent/host/test_support.h"
#include "node-agent/vmm/watch.h"
#include "src/common/base/unix_socket.h"
#include "src/common/guest/frame.h"
#include "tests/node/vmm_process.h"

namespace dormouse::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using vmm::EventKind;
using vmm::VmState;

class FakeGuestTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/dormouse-fake-XXXXXX";
    root_ = ::mkdtemp(name);
    for (const char* file : {"/kernel", "/initramfs", "/disk"}) std::ofstream(root_ + file) << "x";
    vmm_ = VmmProcess::Start(root_);
    ASSERT_NE(vmm_, nullptr);
  }
  void TearDown() override {
    woken_.reset();
    vmm_.reset();
    fs::remove_all(root_);
  }
  void BootWith(const std::string& words) {
    const json config = {{"memory", {{"size", uint64_t{64} << 20}}},
                         {"payload",
                          {{"kernel", root_ + "/kernel"},
                           {"initramfs", root_ + "/initramfs"},
                           {"cmdline", "quiet dormouse.fake=" + words + " panic=-1"}}},
                         {"disks", json::array({{{"id", "disk0"}, {"path", root_ + "/disk"}}})},
                         {"vsock", {{"id", "vsock0"}, {"cid", 3}, {"socket", vsock()}}},
                         {"serial", {{"mode", "Socket"}, {"socket", root_ + "/serial.sock"}}},
                         {"console", {{"mode", "Off"}}}};
    const std::string body = config.dump();
    ASSERT_TRUE(Exchange(vmm_->api_socket(), "PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: " +
                                                 std::to_string(body.size()) + "\r\n\r\n" + body)
                    .starts_with("HTTP/1.1 204"));
    ASSERT_TRUE(Exchange(vmm_->api_socket(), "PUT /api/v1/vm.boot HTTP/1.1\r\n\r\n")
                    .starts_with("HTTP/1.1 204"));
  }
  [[nodiscard]] std::string vsock() const { return root_ + "/vsock.sock"; }
  // The first `bytes` that the guest's port gives to a health request; fewer when it ends or falls
  // silent.
  [[nodiscard]] std::string Dial(size_t bytes, int limit_ms = 200) const {
    const auto connected = ConnectUnix(vsock());
    if (!connected) return "refused";
    const UniqueFd& fd = *connected;
    EXPECT_EQ(::fcntl(fd.get(), F_SETFL, 0), 0);  // its reads wait
    const timeval limit{limit_ms / 1000, limit_ms % 1000 * 1000};
    (void)::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    const std::string request =
        "CONNECT 1024\n" + guest::EncodeFrame(guest::FrameType::kHealth, "{}");
    (void)!::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL);
    std::string heard(bytes, '\0');
    size_t at = 0;
    for (ssize_t got = 0;
         at < bytes && (got = ::read(fd.get(), heard.data() + at, bytes - at)) > 0;) {
      at += static_cast<size_t>(got);
      if (heard.find("bootId") < at) break;
    }
    heard.resize(at);
    return heard;
  }
  // Within 20 s, whatever the load of the machine.
  bool Answers() const {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < limit) {
      const std::string heard = Dial(512, 2000);
      if (heard.starts_with("OK ") && heard.find("bootId") != std::string::npos) return true;
    }
    return false;
  }

  // Pauses, takes a snapshot and wakes it in a VMM of its own, in `root_`/`name`.
  void SleepAndWakeIn(const std::string& name) {
    const std::string home = root_ + "/" + name;
    fs::create_directory(home);
    ASSERT_TRUE(vmm_->api().Pause());
    ASSERT_TRUE(vmm_->api().Snapshot(home));
    vmm_->Signal(SIGKILL);
    ASSERT_NE(vmm_->Wait(), -1);
    std::ifstream in(home + "/config.json");
    json config = json::parse(in);
    config["vsock"]["socket"] = home + "/vsock.sock";
    config["serial"]["socket"] = home + "/serial.sock";
    std::ofstream(home + "/config.json") << config.dump();
    woken_ = VmmProcess::Start(home);
    ASSERT_NE(woken_, nullptr);
    ASSERT_TRUE(woken_->api().Restore({home, true}));
  }

  std::string root_;
  std::unique_ptr<VmmProcess> vmm_;
  std::unique_ptr<VmmProcess> woken_;
};

TEST_F(FakeGuestTest, AnswersWhenItHasBooted) {
  BootWith("boot-ms=1500");
  EXPECT_EQ(Dial(64), "") << "nobody listens yet";
  EXPECT_TRUE(Answers());
}

TEST_F(FakeGuestTest, AnInitThatHangsAnswersNobody) {
  BootWith("init=hang");
  EXPECT_EQ(Dial(64), "");
  EXPECT_EQ(vmm_->api().Info()->state, VmState::kRunning);
}

TEST_F(FakeGuestTest, AHostileGuestIsAsHostileAsAsked) {
  BootWith("vsock=silent");
  EXPECT_EQ(Dial(64), "OK 1073742848\n");
  ASSERT_TRUE(vmm_->api().Delete());
  BootWith("vsock=endless");
  EXPECT_EQ(Dial(200'000), std::string(200'000, 'O'));
  ASSERT_TRUE(vmm_->api().Delete());
  BootWith("vsock=lengths");
  EXPECT_NE(Dial(4096).find("\xff\xff\xff\xff"), std::string::npos);
  ASSERT_TRUE(vmm_->api().Delete());
  BootWith("vsock=garbage");
  EXPECT_EQ(Dial(100'000).size(), 100'000u);
}

TEST_F(FakeGuestTest, PoweroffLeavesTheVmmWithoutAVm) {
  BootWith("poweroff-ms=1");
  EXPECT_TRUE(vmm_->Saw(EventKind::kShutdown));
  EXPECT_TRUE(vmm_->alive());
  EXPECT_EQ(vmm_->api().Info()->state, VmState::kCreated);
}

TEST_F(FakeGuestTest, ARebootHappensInPlaceAndOnce) {
  BootWith("reboot-ms=1");
  EXPECT_TRUE(vmm_->Saw(EventKind::kRebooted));
  EXPECT_EQ(vmm_->CountEvents(EventKind::kRebooting), 1u);
  EXPECT_EQ(vmm_->api().Info()->state, VmState::kRunning);
  EXPECT_TRUE(Answers());
}

TEST_F(FakeGuestTest, ACrashIsADeathBySignal) {
  BootWith("crash-ms=300");
  const int status = vmm_->Wait();
  EXPECT_TRUE(WIFSIGNALED(status)) << status;
}

TEST_F(FakeGuestTest, APanicIsAnEvent) {
  BootWith("panic-ms=1");
  EXPECT_TRUE(vmm_->Saw(EventKind::kGuestPanic));
}

TEST_F(FakeGuestTest, AFloodOnTheSerialLineIsKeptSmall) {
  auto watch = vmm::Watch::Start([](const std::string&, const vmm::WatchNotice&) {});
  ASSERT_TRUE(watch);
  BootWith("serial=flood");
  vmm::WatchSpec spec;
  spec.key = "a";
  spec.serial_socket = host::OwnSocket(root_ + "/serial.sock");
  spec.serial_log = root_ + "/console";
  ASSERT_TRUE((*watch)->Add(std::move(spec)));
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while ((*watch)->SerialTail("a", 3).find("for ever") == std::string::npos &&
         std::chrono::steady_clock::now() < limit) {
  }
  EXPECT_NE((*watch)->SerialTail("a", 3).find("for ever"), std::string::npos);
  EXPECT_LE(fs::file_size(root_ + "/console"), vmm::SerialOptions{}.file_bytes);
  EXPECT_TRUE(Answers()) << "the flood costs the guest's agent nothing";
}

TEST_F(FakeGuestTest, APausedGuestIsSilentUntilItIsResumed) {
  BootWith("boot-ms=0");
  ASSERT_TRUE(Answers());
  ASSERT_TRUE(vmm_->api().Pause());
  EXPECT_EQ(Dial(64), "");
  ASSERT_TRUE(vmm_->api().Resume());
  EXPECT_TRUE(Answers());
}

TEST_F(FakeGuestTest, AFrozenGuestWakesFrozenAndGoesOnWithItsThaw) {
  constexpr std::chrono::milliseconds kLimit{20'000};
  BootWith("boot-ms=0");
  ASSERT_TRUE(Answers());
  const GuestClient before(host::OwnSocket(vsock()));
  guest::StartWorkloadRequest start;
  start.id = "w";
  start.process.argv = {"/bin/sh", "-c", "exit 0"};
  ASSERT_TRUE(before.Configure({}, kLimit));
  ASSERT_TRUE(before.StartWorkload(start, kLimit));
  ASSERT_EQ(before.WorkloadStatus(kLimit, kLimit)->state, guest::WorkloadState::kExited);
  const auto frozen = before.Freeze(kLimit);
  ASSERT_TRUE(frozen) << frozen.error().message();
  EXPECT_TRUE(frozen->frozen) << frozen->detail;
  ASSERT_NO_FATAL_FAILURE(SleepAndWakeIn("clone"));

  const GuestClient after(host::OwnSocket(root_ + "/clone/vsock.sock"));
  ASSERT_TRUE(GuestAnswers(after));
  const auto woken = after.Health(kLimit);
  ASSERT_TRUE(woken) << woken.error().message();
  EXPECT_TRUE(woken->frozen);
  EXPECT_TRUE(woken->configured);
  EXPECT_EQ(woken->workload.id, "w");
  EXPECT_EQ(woken->workload.state, guest::WorkloadState::kExited);
  guest::ExecRequest command;
  command.process.argv = {"/bin/true"};
  EXPECT_EQ(after.OpenExec(command, kLimit).error().code(), ErrorCode::kUnavailable);

  guest::ThawRequest thaw;
  thaw.entropy = std::string(32, 'e');
  thaw.is_resume = true;
  thaw.new_identity = guest::Identity{"clone", std::string(32, 'a')};
  ASSERT_TRUE(after.Thaw(thaw, kLimit));
  const auto thawed = after.Health(kLimit);
  ASSERT_TRUE(thawed);
  EXPECT_FALSE(thawed->frozen);
  ASSERT_EQ(thawed->warnings.size(), 1u);
  EXPECT_EQ(thawed->warnings[0],
            "fake guest: thawed 1 times, hostname clone, machine-id " + std::string(32, 'a'));
  EXPECT_TRUE(after.OpenExec(command, kLimit));
}

TEST_F(FakeGuestTest, ItsMemoryCostsOnlyWhatIsTouched) {
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  GTEST_SKIP() << "a sanitizer's shadow is memory too";
#endif
#endif
  BootWith("touch-mib=2");
  std::ifstream status("/proc/" + std::to_string(vmm_->pid()) + "/status");
  std::string word;
  long kib = 0;
  while (status >> word) {
    if (word == "VmRSS:") status >> kib;
  }
  EXPECT_GT(kib, 2 * 1024);
  EXPECT_LT(kib, 16 * 1024);
}

}  // namespace
}  // namespace dormouse::test
