// What a VMM hands over, and what is left where it had no room for it: a drop on a file system of
// its own, and the VMM that $CLOUD_HYPERVISOR names, which is the fake.
#include "node-agent/machine/vmm_drop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "node-agent/host/test_support.h"
#include "node-agent/machine/inner_paths.h"
#include "node-agent/record/generation_files.h"
#include "src/common/base/files.h"
#include "src/common/base/units.h"
#include "tests/node/vmm_process.h"

namespace dormouse {
namespace {

using nlohmann::json;

// An id that is in config.json and in state.json, and makes each of them larger than a page.
constexpr size_t kLongId = 5000;
constexpr int kPageKib = 4;

class VmmDropTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!host::IsRoot()) GTEST_SKIP() << "mounting needs root";
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      GTEST_SKIP() << "no mount namespace: " << std::strerror(errno);
    }
    ASSERT_OK(MakeDirectories(drop_));
    ASSERT_OK(MakeDirectories(generation_));
    ASSERT_EQ(::mount("none", drop_.c_str(), "tmpfs", 0, "size=256m"), 0);
    mounted_ = true;
    for (const char* file : {"kernel", "initramfs"})
      ASSERT_OK(WriteFileAtomically(scratch_ / file, "x"));
    ASSERT_OK(MakeDirectories(scratch_ / "vm"));
    vmm_ = test::VmmProcess::Start(scratch_ / "vm");
    ASSERT_NE(vmm_, nullptr);
    const json config = {
        {"memory", {{"size", 320 * kMiB}}},
        {"payload",
         {{"kernel", scratch_ / "kernel"},
          {"initramfs", scratch_ / "initramfs"},
          {"cmdline", "quiet dormouse.fake=touch-mib=20"}}},
        {"vsock",
         {{"id", std::string(kLongId, 'v')}, {"cid", 3}, {"socket", scratch_ / "vsock.sock"}}},
        {"serial", {{"mode", "Off"}}},
        {"console", {{"mode", "Off"}}}};
    ASSERT_TRUE(Put("vm.create", config.dump()));
    ASSERT_TRUE(Put("vm.boot", ""));
    ASSERT_OK(vmm_->api().Pause());
  }
  void TearDown() override {
    vmm_.reset();
    if (mounted_) (void)::umount2(drop_.c_str(), MNT_DETACH);
  }

  [[nodiscard]] bool Put(const std::string& endpoint, const std::string& body) const {
    std::string request = "PUT /api/v1/" + endpoint + " HTTP/1.1\r\nHost: localhost\r\n";
    if (!body.empty()) request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    return test::Exchange(vmm_->api_socket(), request + "\r\n" + body).starts_with("HTTP/1.1 204");
  }
  void Room(const std::string& options) const {
    ASSERT_EQ(::mount("none", drop_.c_str(), "tmpfs", MS_REMOUNT, options.c_str()), 0)
        << options << ": " << std::strerror(errno);
  }
  [[nodiscard]] Result<HandedOver> Take(Handover handover) const {
    return TakeSnapshot(vmm_->api(), Drop(), handover, generation_);
  }
  [[nodiscard]] VmmDrop Drop() const { return {host::Directory::Open(drop_).value(), drop_, 0}; }
  // It had no room, said so, left nothing, and its VM can go on.
  void ExpectNoSpace(const Result<HandedOver>& taken) const {
    ASSERT_FALSE(taken);
    EXPECT_EQ(taken.error().code(), ErrorCode::kNoSpace) << taken.error().message();
    EXPECT_NE(taken.error().message().find("No space left"), std::string::npos)
        << taken.error().message();
    EXPECT_EQ(ListDirectory(drop_), std::vector<std::string>());
    EXPECT_OK(vmm_->api().Resume());
    EXPECT_OK(vmm_->api().Pause());
  }

  const host::ScratchDirectory scratch_;
  const std::string drop_ = scratch_ / "drop";
  const std::string generation_ = scratch_ / "generation";
  std::unique_ptr<test::VmmProcess> vmm_;
  bool mounted_ = false;
};

TEST_F(VmmDropTest, TheStateIsCopiedAndTheMemoryLiesInTheDropWhereItWasAskedFor) {
  for (const Handover handover : {Handover::kStateOnly, Handover::kWithMemory}) {
    const auto taken = Take(handover);
    ASSERT_OK(taken);
    EXPECT_EQ(ReadFile(generation_ + "/" + kConfigFile, kMiB), taken->config);
    EXPECT_EQ(taken->summary.memory_bytes, 320 * kMiB);
    EXPECT_TRUE(PathExists(generation_ + "/" + kStateFile));
    const std::string memory = drop_ + "/" + kStockMemoryFile;
    EXPECT_EQ(LeftMemory(drop_), handover == Handover::kWithMemory ? memory : "");
    struct stat info {};
    ASSERT_EQ(::stat(memory.c_str(), &info), 0);
    const uint64_t bytes = handover == Handover::kWithMemory ? 320 * kMiB : 0;
    EXPECT_EQ(static_cast<uint64_t>(info.st_size), bytes);
  }
}

TEST_F(VmmDropTest, TheMemoryIsCopiedSoThatItsWriterCannotChangeIt) {
  ASSERT_OK(Take(Handover::kWithMemory));
  const UniqueFd held(::open((drop_ + "/" + kStockMemoryFile).c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(held);
  const std::string memory = generation_ + "/" + kMemoryFile;
  ASSERT_OK(WriteFileAtomically(memory, "of an earlier try"));
  ASSERT_OK(TakeMemory(Drop(), 320 * kMiB, memory));
  EXPECT_EQ(ListDirectory(drop_), std::vector<std::string>());
  char before = 0;
  char after = 0;
  const UniqueFd copy(::open(memory.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::pread(copy.get(), &before, 1, kMiB), 1);
  const char other = static_cast<char>(before + 1);
  ASSERT_EQ(::pwrite(held.get(), &other, 1, kMiB), 1);
  ASSERT_EQ(::pread(copy.get(), &after, 1, kMiB), 1);
  EXPECT_EQ(after, before);
}

TEST_F(VmmDropTest, AMemoryThatIsNotThePlainFileOfItsSizeIsNotTaken) {
  const std::string planted = drop_ + "/" + kStockMemoryFile;
  const std::string memory = generation_ + "/" + kMemoryFile;
  const std::string secret = drop_ + "/another's";
  const auto make = [&](const std::string& content, off_t bytes, uid_t owner) {
    return WriteFileAtomically(planted, content).has_value() &&
           ::truncate(planted.c_str(), bytes) == 0 && ::chown(planted.c_str(), owner, owner) == 0;
  };
  const std::map<std::string, std::function<bool()>> traps = {
      {"a link", [&] { return ::symlink(secret.c_str(), planted.c_str()) == 0; }},
      {"a hard link", [&] { return ::link(secret.c_str(), planted.c_str()) == 0; }},
      {"a fifo", [&] { return ::mkfifo(planted.c_str(), 0600) == 0; }},
      {"a directory", [&] { return ::mkdir(planted.c_str(), 0700) == 0; }},
      {"too short", [&] { return make("s", 1, 0); }},
      {"a terabyte", [&] { return make("", off_t{1} << 40, 0); }},
      {"another's", [&] { return make("", 4096, 4242); }},
  };
  for (const auto& [what, plant] : traps) {
    ASSERT_OK(WriteFileAtomically(secret, std::string(4096, 's')));
    ASSERT_TRUE(plant()) << what;
    const auto taken = TakeMemory(Drop(), 4096, memory);
    ASSERT_FALSE(taken) << what;
    EXPECT_EQ(taken.error().code(), ErrorCode::kCorrupt) << what;
    EXPECT_FALSE(PathExists(memory)) << what;
    EXPECT_EQ(ListDirectory(drop_), std::vector<std::string>()) << what;
  }
}

TEST_F(VmmDropTest, WhatAnAgentThatDiedLeftToTheVmmIsTakenBack) {
  ASSERT_EQ(::chown(drop_.c_str(), 4242, 4242), 0);
  ASSERT_OK(TakeBack(drop_));
  struct stat info {};
  ASSERT_EQ(::stat(drop_.c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 0u);
  EXPECT_OK(TakeBack(drop_ + "/nowhere"));
}

TEST_F(VmmDropTest, AMemoryWithoutRoomIsNoSpaceAndLeavesNothing) {
  ASSERT_NO_FATAL_FAILURE(Room("size=4m"));
  ASSERT_OK(Take(Handover::kStateOnly)) << "what we read ourselves needs no room in the drop";
  ExpectNoSpace(Take(Handover::kWithMemory));
  ASSERT_NO_FATAL_FAILURE(Room("size=256m"));
  EXPECT_OK(Take(Handover::kWithMemory));
}

TEST_F(VmmDropTest, AStateWithoutRoomIsNoSpaceThoughTheVmmDoesNotNotice) {
  int failed = 0;
  int unnoticed = 0;
  for (int kib = kPageKib; kib < 64; kib += kPageKib) {
    ASSERT_NO_FATAL_FAILURE(Room("size=" + std::to_string(kib) + "k"));
    const auto taken = Take(Handover::kStateOnly);
    if (taken) break;
    ++failed;
    SCOPED_TRACE(std::to_string(kib) + " KiB");
    ExpectNoSpace(taken);
    unnoticed += taken.error().message().find("malformed") != std::string::npos ? 1 : 0;
  }
  EXPECT_GE(failed, 3);
  EXPECT_GE(unnoticed, 1) << "no file was cut short";
  ASSERT_NO_FATAL_FAILURE(Room("size=4m"));
  for (const char* file : {kStockMemoryFile, kConfigFile, kStateFile})
    ASSERT_OK(RemoveFile(drop_ + "/" + file));
  // Its own directory, what stands in the way of memory, config.json, state.json.
  for (int files = 1; files < 4; ++files) {
    ASSERT_NO_FATAL_FAILURE(Room("nr_inodes=" + std::to_string(files)));
    const auto taken = Take(Handover::kStateOnly);
    ASSERT_FALSE(taken) << files;
    EXPECT_EQ(taken.error().code(), ErrorCode::kNoSpace) << taken.error().message();
    EXPECT_EQ(ListDirectory(drop_), std::vector<std::string>());
  }
}

TEST_F(VmmDropTest, WhatCannotBeIsNoLackOfRoomWhereThereIsRoom) {
  ASSERT_OK(vmm_->api().Resume());
  const auto running = Take(Handover::kStateOnly);
  ASSERT_FALSE(running);
  EXPECT_EQ(running.error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(ListDirectory(drop_), std::vector<std::string>());
}

}  // namespace
}  // namespace dormouse
