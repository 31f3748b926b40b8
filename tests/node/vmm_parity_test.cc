// What Dormouse relies on in Cloud Hypervisor v53.0, asked of whichever binary $CLOUD_HYPERVISOR
// names: the fake must pass all of it, so that what is tested on the fake holds for the real one.
//
// The cases of VmmGuestParityTest need a guest. For the real VMM they take $DORMOUSE_TEST_KERNEL,
// $DORMOUSE_TEST_INITRAMFS and $DORMOUSE_TEST_DISK, and are skipped without.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "node-agent/guest/guest_client.h"
#include "node-agent/host/test_support.h"
#include "node-agent/vmm/api_error.h"
#include "node-agent/vmm/artifact_store.h"
#include "src/common/base/files.h"
#include "tests/node/vmm_process.h"

namespace dormouse::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using vmm::EventKind;
using vmm::VmState;
using namespace std::chrono_literals;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// One answer of the API to a bare request.
std::string Ask(const VmmProcess& vmm, const std::string& method, const std::string& endpoint,
                const std::string& body = "") {
  std::string request = method + " /api/v1/" + endpoint + " HTTP/1.1\r\nHost: localhost\r\n";
  if (!body.empty()) request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  return Exchange(vmm.api_socket(), request + "\r\n" + body);
}

int StatusOf(const std::string& answer) {
  return answer.size() < 12 ? 0 : std::atoi(answer.c_str() + 9);
}
std::string BodyOf(const std::string& answer) {
  const auto head = answer.find("\r\n\r\n");
  return head == std::string::npos ? "" : answer.substr(head + 4);
}

class VmmParityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (VmmBinary().empty()) GTEST_SKIP() << "no cloud-hypervisor in $CLOUD_HYPERVISOR or PATH";
    const auto output = vmm::ReadVersionOutput(VmmBinary());
    ASSERT_TRUE(output) << output.error().message();
    const auto version = vmm::ParseVersionOutput(*output);
    ASSERT_TRUE(version) << *output;
    ASSERT_EQ(version->Short(), "53.0") << "the quirks are those of v53.0";
    fake_ = IsFake(*version);
    root_ = MakeDirectory();
    kernel_ = Environment("DORMOUSE_TEST_KERNEL");
    initramfs_ = Environment("DORMOUSE_TEST_INITRAMFS");
    disk_ = root_ + "/disk";
    if (fake_ || kernel_.empty()) {
      kernel_ = root_ + "/vmlinuz";
      initramfs_ = root_ + "/initrd";
      std::ofstream(kernel_) << "no kernel";
      std::ofstream(initramfs_) << "no initramfs";
      std::ofstream(disk_).flush();
      fs::resize_file(disk_, 8 << 20);
    } else {
      fs::copy_file(Environment("DORMOUSE_TEST_DISK"), disk_);
    }
    vmm_ = VmmProcess::Start(root_);
    ASSERT_NE(vmm_, nullptr);
  }
  void TearDown() override {
    vmm_.reset();
    for (const std::string& directory : directories_) fs::remove_all(directory);
  }
  std::string MakeDirectory() {
    char name[] = "/tmp/dormouse-parity-XXXXXX";
    directories_.emplace_back(::mkdtemp(name));
    return directories_.back();
  }
  // Without a tap: that needs a network namespace and is asked of the node tier.
  [[nodiscard]] json Config() const {
    return {{"cpus", {{"boot_vcpus", 1}, {"max_vcpus", 1}}},
            {"memory", {{"size", uint64_t{256} << 20}}},
            {"payload",
             {{"kernel", kernel_},
              {"initramfs", initramfs_},
              {"cmdline", "root=/dev/vda rw console=ttyS0 panic=-1 clocksource=kvm-clock quiet"}}},
            {"disks",
             json::array(
                 {{{"id", "disk0"}, {"path", disk_}, {"image_type", "Raw"}, {"sparse", false}}})},
            {"vsock", {{"id", "vsock0"}, {"cid", 3}, {"socket", root_ + "/vsock.sock"}}},
            {"serial", {{"mode", "Socket"}, {"socket", root_ + "/serial.sock"}}},
            {"console", {{"mode", "Off"}}}};
  }
  // As the wire has it: ApiClient::Boot would delete what it could not boot.
  [[nodiscard]] Result<> Boot() const {
    const std::string answer = Ask(*vmm_, "PUT", "vm.boot");
    if (StatusOf(answer) == 204) return {};
    return Fail(vmm::ErrorFromResponse("vm.boot", StatusOf(answer), BodyOf(answer)));
  }
  void Create(const json& config) {
    ASSERT_EQ(StatusOf(Ask(*vmm_, "PUT", "vm.create", config.dump())), 204);
  }

  bool fake_ = false;
  std::string root_;
  std::string kernel_;
  std::string initramfs_;
  std::string disk_;
  std::vector<std::string> directories_;
  std::unique_ptr<VmmProcess> vmm_;
};

TEST_F(VmmParityTest, PingTellsAnAdmittedVersion) {
  const auto ping = vmm_->api().Ping();
  ASSERT_TRUE(ping) << ping.error().message();
  EXPECT_EQ(ping->pid, vmm_->pid());
  EXPECT_EQ(vmm::Admit(ping->version).value(), vmm::Admission::kFull);
  EXPECT_EQ(IsFake(ping->version), fake_);
}

TEST_F(VmmParityTest, AnswersHaveNoReasonPhraseAndA204HasNoLength) {
  EXPECT_TRUE(Ask(*vmm_, "GET", "vmm.ping").starts_with("HTTP/1.1 200 \r\n"));
  EXPECT_EQ(Ask(*vmm_, "PUT", "vm.delete"),
            "HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n");
}

TEST_F(VmmParityTest, RefusalsAreArraysOfStrings) {
  EXPECT_EQ(BodyOf(Ask(*vmm_, "GET", "nothing")), R"(["Not Found"])");
  EXPECT_EQ(BodyOf(Ask(*vmm_, "PUT", "vmm.ping")), R"(["Bad Request"])");
  EXPECT_EQ(BodyOf(Ask(*vmm_, "PUT", "vm.boot", "{}")), R"(["Bad Request"])");
  EXPECT_EQ(BodyOf(Ask(*vmm_, "GET", "vm.info")),
            R"(["Error from API","The VM info is not available","VM is not created"])");
  const std::string bad = Ask(*vmm_, "PUT", "vm.create", "{");
  EXPECT_EQ(StatusOf(bad), 400);
  EXPECT_TRUE(BodyOf(bad).starts_with(R"(["Failed to deserialize JSON",)")) << bad;
}

TEST_F(VmmParityTest, ErrorsOfParsingAreTextWithARawNewline) {
  for (const std::string& answer : {Ask(*vmm_, "POST", "vm.create"),
                                    Ask(*vmm_, "PUT", "vm.create", std::string(51'201, 'x'))}) {
    EXPECT_EQ(StatusOf(answer), 400);
    EXPECT_NE(BodyOf(answer).find("\nAll previous unanswered requests will be dropped."),
              std::string::npos);
  }
  // One byte less is read, and is bad JSON.
  EXPECT_TRUE(BodyOf(Ask(*vmm_, "PUT", "vm.create", std::string(51'200, 'x')))
                  .starts_with(R"(["Failed to deserialize JSON",)"));
  const std::string nothing = Ask(*vmm_, "PUT", "vm.create");
  EXPECT_EQ(StatusOf(nothing), 400);
  EXPECT_EQ(BodyOf(nothing), "");
}

TEST_F(VmmParityTest, TheEleventhConnectionIsTurnedAway) {
  std::vector<UniqueFd> held;
  for (int i = 0; i < 10; ++i) held.push_back(ConnectUnix(vmm_->api_socket(), 5s).value());
  EXPECT_EQ(StatusOf(Exchange(vmm_->api_socket(), "")), 503);
  const auto ping = vmm_->api().Ping();
  ASSERT_FALSE(ping);
  EXPECT_TRUE(ping.error().IsRetryable()) << ping.error().message();
}

TEST_F(VmmParityTest, UnknownKeysAreIgnoredAndUnknownModesAreNot) {
  json config = Config();
  config["something_new"] = {{"x", 1}};
  config["console"]["mode"] = "Hologram";
  EXPECT_EQ(StatusOf(Ask(*vmm_, "PUT", "vm.create", config.dump())), 400);
  config["console"]["mode"] = "Off";
  Create(config);
}

TEST_F(VmmParityTest, AVmIsCreatedOnceAndDeletedAsOftenAsOneLikes) {
  EXPECT_EQ(vmm_->api().Info().error().code(), ErrorCode::kNotFound);
  Create(Config());
  EXPECT_EQ(vmm_->api().Info()->state, VmState::kCreated);
  EXPECT_TRUE(PathExists(root_ + "/serial.sock"));
  EXPECT_NE(BodyOf(Ask(*vmm_, "PUT", "vm.create", Config().dump())).find("VM is already created"),
            std::string::npos);
  EXPECT_TRUE(vmm_->api().Delete());
  EXPECT_TRUE(vmm_->api().Delete());
  // It never booted, so nobody removed it, and the next create would find it in its way.
  EXPECT_TRUE(PathExists(root_ + "/serial.sock"));
  fs::remove(root_ + "/serial.sock");
  Create(Config());
}

TEST_F(VmmParityTest, WhatNeedsARunningVmSaysSo) {
  Create(Config());
  for (const auto& refused :
       {vmm_->api().Pause(), vmm_->api().Resume(), vmm_->api().Snapshot(root_)}) {
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message().find("HTTP 500"), std::string::npos);
    EXPECT_NE(refused.error().message().find("VM is not running"), std::string::npos);
  }
  const std::string shutdown = Ask(*vmm_, "PUT", "vm.shutdown");
  EXPECT_EQ(StatusOf(shutdown), 500);
  EXPECT_NE(BodyOf(shutdown).find("VM is not running"), std::string::npos);
  EXPECT_EQ(StatusOf(Ask(*vmm_, "GET", "vm.counters")), 500);
}

TEST_F(VmmParityTest, ASerialSocketInTheWayFailsTheCreateAndYetTheConfigStays) {
  std::ofstream(root_ + "/serial.sock").flush();
  const std::string refused = Ask(*vmm_, "PUT", "vm.create", Config().dump());
  EXPECT_EQ(Boot().error().code(), ErrorCode::kBusy);
  EXPECT_NE(BodyOf(refused).find("Address already in use (os error 98)"), std::string::npos);
  EXPECT_EQ(vmm_->api().Info()->state, VmState::kCreated);
}

TEST_F(VmmParityTest, ADiskThatIsNotThereIsNamedAndAFailedBootLosesIt) {
  json config = Config();
  config["disks"][0]["path"] = root_ + "/none";
  Create(config);
  const auto boot = Boot();
  ASSERT_FALSE(boot);
  EXPECT_NE(boot.error().message().find("I/O error (path=" + root_ +
                                        "/none op=open): No such file or directory"),
            std::string::npos)
      << boot.error().message();
  EXPECT_TRUE(vmm_->Saw(EventKind::kBooting));
  EXPECT_EQ(vmm_->CountEvents(EventKind::kBooted), 0u);
  // Booting once more would run the guest without its disk: hence delete and create again
  // (api_client.h).
  EXPECT_FALSE(json::parse(vmm_->api().Info()->config_json).contains("disks"));
  ASSERT_TRUE(vmm_->api().Delete());
  Create(Config());
}

TEST_F(VmmParityTest, ADiskThatAnotherHoldsIsBusyAndLeavesAVmBehind) {
  const UniqueFd other(::open(disk_.c_str(), O_RDWR | O_CLOEXEC));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  ASSERT_EQ(::fcntl(other.get(), F_OFD_SETLK, &lock), 0);
  Create(Config());
  const auto boot = Boot();
  ASSERT_FALSE(boot);
  EXPECT_EQ(boot.error().code(), ErrorCode::kBusy) << boot.error().message();
  EXPECT_NE(Boot().error().message().find("VM is already created"), std::string::npos);
  EXPECT_TRUE(vmm_->api().Delete());
}

TEST_F(VmmParityTest, AVsockSocketInTheWayIsBusyAndIsLeftAlone) {
  std::ofstream(root_ + "/vsock.sock").flush();
  Create(Config());
  EXPECT_EQ(Boot().error().code(), ErrorCode::kBusy);
  EXPECT_TRUE(vmm_->api().Delete());
  EXPECT_TRUE(PathExists(root_ + "/vsock.sock"));
}

TEST_F(VmmParityTest, AKernelThatIsNotThereIsNamed) {
  json config = Config();
  config["payload"]["kernel"] = root_ + "/none";
  Create(config);
  EXPECT_NE(Boot().error().message().find("Cannot open kernel file: No such file or directory"),
            std::string::npos);
}

TEST_F(VmmParityTest, ShutdownAnswersThenExitsWithoutItsSocket) {
  EXPECT_EQ(StatusOf(Ask(*vmm_, "PUT", "vmm.shutdown")), 200);
  const int status = vmm_->Wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_FALSE(PathExists(vmm_->api_socket()));
  EXPECT_TRUE(PathExists(vmm_->api_socket() + ".lock"));
}

TEST_F(VmmParityTest, SigtermIsAnOrderlyEndWithCodeZero) {
  Create(Config());
  vmm_->Signal(SIGTERM);
  const int status = vmm_->Wait();
  // Its last events may be lost: their thread is not waited for.
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

TEST_F(VmmParityTest, ASocketInUseIsRefusedToASecondVmm) {
  const auto second = VmmProcess::Spawn(root_);
  ASSERT_NE(second, nullptr);
  const int status = second->Wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
  EXPECT_TRUE(vmm_->api().Ping());
}

TEST_F(VmmParityTest, ARestoreFromNowhereLeavesAVmmThatCanTryAgain) {
  const auto refused = vmm_->api().Restore({root_ + "/none", false});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("Destination is not a directory"), std::string::npos);
  EXPECT_EQ(vmm_->api().Info().error().code(), ErrorCode::kNotFound);
  Create(Config());
  EXPECT_NE(vmm_->api().Restore({root_, false}).error().message().find("VM is already created"),
            std::string::npos);
}

class VmmGuestParityTest : public VmmParityTest {
 protected:
  void SetUp() override {
    VmmParityTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (!fake_ && Environment("DORMOUSE_TEST_KERNEL").empty()) {
      GTEST_SKIP() << "a real VMM without DORMOUSE_TEST_KERNEL, _INITRAMFS and _DISK";
    }
    Create(Config());
    const auto booted = Boot();
    ASSERT_TRUE(booted) << booted.error().message();
  }
  // The boot id that the guest's agent tells through the hybrid vsock socket; empty after 60 s of
  // silence.
  static std::string BootId(const std::string& socket) {
    const GuestClient guest(host::OwnSocket(socket));
    if (!GuestAnswers(guest)) return "";
    const auto health = guest.Health(60s);
    return health ? health->boot_id : "";
  }
  // config.json and state.json of `from` for a VM of its own in `to` (facts of v53.0: paths are the
  // config's; an empty memory_ranges and a zone with a file map RAM copy-on-write).
  void EditForClone(const std::string& from, const std::string& to, bool map_memory) {
    json config = json::parse(*ReadFile(from + "/config.json", 1 << 20));
    config["vsock"]["socket"] = to + "/vsock.sock";
    config["serial"]["socket"] = to + "/serial.sock";
    json state = json::parse(*ReadFile(from + "/state.json", 16 << 20));
    if (map_memory) {
      const uint64_t size = config["memory"]["size"];
      config["memory"]["size"] = 0;
      config["memory"]["zones"] = json::array(
          {{{"id", "mem0"}, {"size", size}, {"file", from + "/memory-ranges"}, {"shared", false}}});
      json& text = state["snapshots"]["memory-manager"]["snapshot_data"]["state"];
      json memory = json::parse(text.get<std::string>());
      uint64_t offset = 0;
      for (json& mapping : memory["guest_ram_mappings"]) {
        mapping["file_offset"] = offset;
        offset += mapping["size"].get<uint64_t>();
      }
      memory["memory_ranges"] = {{"data", json::array()}};
      text = memory.dump();
    } else {
      fs::create_hard_link(from + "/memory-ranges", to + "/memory-ranges");
    }
    std::ofstream(to + "/config.json") << config.dump();
    std::ofstream(to + "/state.json") << state.dump();
  }
  void RestoreAndAnswer(bool map_memory) {
    const std::string before = BootId(root_ + "/vsock.sock");
    ASSERT_FALSE(before.empty());
    const std::string generation = MakeDirectory();
    const auto paused = vmm_->api().Pause();
    ASSERT_TRUE(paused) << paused.error().message();
    const auto snapshot = vmm_->api().Snapshot(generation);
    ASSERT_TRUE(snapshot) << snapshot.error().message();
    EXPECT_EQ(fs::file_size(generation + "/memory-ranges"), uint64_t{256} << 20);
    vmm_->Signal(SIGKILL);
    ASSERT_NE(vmm_->Wait(), -1);

    const std::string home = MakeDirectory();
    EditForClone(generation, home, map_memory);
    const auto clone = VmmProcess::Start(home);
    ASSERT_NE(clone, nullptr);
    const auto restored = clone->api().Restore({home, false});
    ASSERT_TRUE(restored) << restored.error().message();
    EXPECT_TRUE(clone->Saw(EventKind::kRestored));
    EXPECT_EQ(clone->api().Info()->state, VmState::kPaused);
    ASSERT_TRUE(clone->api().Resume());
    EXPECT_EQ(BootId(home + "/vsock.sock"), before) << "the guest went on, and did not boot";
  }
};

TEST_F(VmmGuestParityTest, StatesAreKeptToStrictly) {
  EXPECT_TRUE(vmm_->Saw(EventKind::kBooted));
  EXPECT_EQ(vmm_->api().Info()->state, VmState::kRunning);
  EXPECT_NE(vmm_->api().Resume().error().message().find("InvalidStateTransition(Running, Running)"),
            std::string::npos);
  EXPECT_NE(
      vmm_->api().Snapshot(root_).error().message().find("Trying to snapshot while VM is running"),
      std::string::npos);
  ASSERT_TRUE(vmm_->api().Pause());
  EXPECT_EQ(vmm_->api().Info()->state, VmState::kPaused);
  EXPECT_NE(vmm_->api().Pause().error().message().find("InvalidStateTransition(Paused, Paused)"),
            std::string::npos);
  ASSERT_TRUE(vmm_->api().Resume());
  EXPECT_TRUE(vmm_->Saw(EventKind::kResumed));
  const json counters = json::parse(BodyOf(Ask(*vmm_, "GET", "vm.counters")), nullptr, false);
  EXPECT_TRUE(counters.contains("disk0"));
}

TEST_F(VmmGuestParityTest, ShutdownReadsCreatedAndBootsAgain) {
  ASSERT_EQ(StatusOf(Ask(*vmm_, "PUT", "vm.shutdown")), 204);
  EXPECT_TRUE(vmm_->Saw(EventKind::kShutdown));
  EXPECT_EQ(vmm_->api().Info()->state, VmState::kCreated);
  EXPECT_FALSE(PathExists(root_ + "/vsock.sock"));
  EXPECT_TRUE(Boot());
}

TEST_F(VmmGuestParityTest, APausedGuestAnswersNobodyAndThenGoesOn) {
  const std::string before = BootId(root_ + "/vsock.sock");
  ASSERT_FALSE(before.empty());
  ASSERT_TRUE(vmm_->api().Pause());
  ASSERT_TRUE(vmm_->api().Resume());
  EXPECT_EQ(BootId(root_ + "/vsock.sock"), before);
}

TEST_F(VmmGuestParityTest, ASnapshotNeverOverwrites) {
  ASSERT_TRUE(vmm_->api().Pause());
  const std::string generation = MakeDirectory();
  ASSERT_TRUE(vmm_->api().Snapshot(generation));
  EXPECT_EQ(vmm_->api().Snapshot(generation).error().code(), ErrorCode::kAlreadyExists);
}

TEST_F(VmmGuestParityTest, StateOnlySnapshotStopsAtTheMemoryFile) {
  ASSERT_TRUE(vmm_->api().Pause());
  const std::string state_only = MakeDirectory();
  const auto done =
      vmm_->api().SnapshotStateOnly(state_only, host::Directory::Open(state_only).value());
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(fs::file_size(state_only + "/memory-ranges"), 0u);
  EXPECT_TRUE(json::accept(*ReadFile(state_only + "/config.json", 1 << 20)));
  EXPECT_TRUE(json::accept(*ReadFile(state_only + "/state.json", 16 << 20)));
  EXPECT_EQ(vmm_->api().Info()->state, VmState::kPaused);
  EXPECT_TRUE(vmm_->api().Snapshot(MakeDirectory()));
  EXPECT_TRUE(vmm_->api().Resume());
}

TEST_F(VmmGuestParityTest, ACopyOfTheMemoryGoesOnWhereItWas) {
  RestoreAndAnswer(/*map_memory=*/false);
}

TEST_F(VmmGuestParityTest, AMappedMemoryGoesOnWhereItWas) {
  RestoreAndAnswer(/*map_memory=*/true);
}

TEST_F(VmmGuestParityTest, SigtermEndsGuestAndVmm) {
  vmm_->Signal(SIGTERM);
  const int status = vmm_->Wait();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_FALSE(PathExists(root_ + "/vsock.sock"));
}

}  // namespace
}  // namespace dormouse::test
