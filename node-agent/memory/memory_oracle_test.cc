// The dump from outside against the VMM's own snapshot, byte for byte: of whichever binary
// $CLOUD_HYPERVISOR names, the fake here and the real one on a node. For the real one it takes
// $DORMOUSE_TEST_KERNEL, $DORMOUSE_TEST_INITRAMFS and $DORMOUSE_TEST_DISK, and is skipped without.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "node-agent/guest/guest_client.h"
#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"
#include "node-agent/memory/digests.h"
#include "node-agent/memory/dump.h"
#include "node-agent/vmm/artifact_store.h"
#include "node-agent/vmm/snapshot_files.h"
#include "src/common/base/files.h"
#include "src/common/base/units.h"
#include "tests/node/vmm_process.h"

namespace dormouse::memory {
namespace {

namespace fs = std::filesystem;
using host::ScratchDirectory;
using nlohmann::json;
using test::VmmProcess;
using namespace std::chrono_literals;

std::string Environment(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : fallback;
}

std::vector<GuestRange> RangesIn(const std::string& directory) {
  const auto state = ReadFile(directory + "/state.json", vmm::kMaxStateBytes);
  EXPECT_OK(state);
  const auto summary = vmm::ReadStateSummary(state.value_or(""));
  EXPECT_OK(summary);
  std::vector<GuestRange> ranges;
  if (!summary) return ranges;
  for (const vmm::RamRange& range : summary->ranges) ranges.push_back({range.gpa, range.length});
  return ranges;
}

// The next offset from `at` on at which either file has data; nothing when there is none.
std::optional<uint64_t> NextDataOfEither(const UniqueFd (&files)[2], uint64_t at) {
  std::optional<uint64_t> next;
  for (const UniqueFd& file : files) {
    const auto data = host::NextData(file.get(), at);
    EXPECT_OK(data);
    if (data && *data) next = std::min(next.value_or(UINT64_MAX), std::max((*data)->offset, at));
  }
  return next;
}

// The offset of the first page that differs; nothing when the files are the same.
std::optional<uint64_t> FirstDifference(const std::string& left, const std::string& right) {
  const uint64_t bytes = fs::file_size(left);
  if (fs::file_size(right) != bytes) return 0;
  const UniqueFd files[2] = {UniqueFd(::open(left.c_str(), O_RDONLY | O_CLOEXEC)),
                             UniqueFd(::open(right.c_str(), O_RDONLY | O_CLOEXEC))};
  std::vector<char> blocks[] = {std::vector<char>(kMiB), std::vector<char>(kMiB)};
  for (auto at = NextDataOfEither(files, 0); at; at = NextDataOfEither(files, *at)) {
    const size_t size = std::min(kMiB, bytes - *at);
    for (int i = 0; i < 2; ++i) {
      if (::pread(files[i].get(), blocks[i].data(), size, static_cast<off_t>(*at)) !=
          static_cast<ssize_t>(size)) {
        return at;
      }
    }
    for (uint64_t page = 0; page < size; page += kPageBytes) {
      if (std::memcmp(&blocks[0][page], &blocks[1][page], kPageBytes) != 0) return *at + page;
    }
    *at += size;
  }
  return std::nullopt;
}

// Until the guest's agent answers: it runs, and has written to its memory.
void AwaitGuest(const VmmProcess& vmm) {
  EXPECT_TRUE(test::GuestAnswers(GuestClient(host::OwnSocket(vmm.Path("vsock.sock")))))
      << "the guest does not answer";
}

// A line of /proc/<pid>/<file>, in KiB.
uint64_t KibOf(pid_t pid, const std::string& file, const std::string& key) {
  const std::string text = ReadFile("/proc/" + std::to_string(pid) + "/" + file, kMiB).value_or("");
  const size_t at = text.find("\n" + key + ":");
  return at == std::string::npos ? 0 : std::strtoull(&text[at + key.size() + 2], nullptr, 10);
}

// Every other stripe of RAM, as far as there is swap for it and one may; huge pages stay in
// between.
void PageOut(pid_t pid, const RamMap& map) {
  constexpr uint64_t kStripe = 8 * kMiB;
  std::vector<iovec> stripes;
  for (const RamSegment& segment : map.segments) {
    for (uint64_t at = 0; at < segment.length; at += 2 * kStripe) {
      stripes.push_back({reinterpret_cast<void*>(segment.address + at),  // NOLINT: the VMM's
                         std::min(kStripe, segment.length - at)});
    }
  }
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process) return;
  // A page that some CPU has on a list to be put somewhere stays where it is, that time.
  for (int round = 0; round < 4; ++round) {
    for (const iovec& stripe : stripes) {
      (void)::process_madvise(process.get(), &stripe, 1, MADV_PAGEOUT, 0);
    }
  }
}

class MemoryOracleTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override {
    if (test::VmmBinary().empty()) {
      GTEST_SKIP() << "no cloud-hypervisor in $CLOUD_HYPERVISOR or PATH";
    }
    const auto output = vmm::ReadVersionOutput(test::VmmBinary());
    ASSERT_OK(output);
    const auto version = vmm::ParseVersionOutput(*output);
    ASSERT_TRUE(version) << *output;
    real_ = !test::IsFake(*version);
    if (real_ && Environment("DORMOUSE_TEST_KERNEL", "").empty()) {
      GTEST_SKIP() << "a real VMM without DORMOUSE_TEST_KERNEL, _INITRAMFS and _DISK";
    }
    kernel_ = Environment("DORMOUSE_TEST_KERNEL", scratch_ / "vmlinuz");
    initramfs_ = Environment("DORMOUSE_TEST_INITRAMFS", scratch_ / "initrd");
    if (!real_) {
      ASSERT_OK(WriteFileAtomically(scratch_ / "vmlinuz", "no kernel"));
      ASSERT_OK(WriteFileAtomically(scratch_ / "initrd", "no initramfs"));
      ASSERT_OK(MakeMemoryFile(std::nullopt, 8 * kMiB, disk_));
    } else {
      fs::copy_file(Environment("DORMOUSE_TEST_DISK", ""), disk_);
    }
  }

  std::unique_ptr<VmmProcess> BootAndPause() {
    const std::string home = Directory("boot");
    auto vmm = VmmProcess::Start(home);
    const json config = {
        {"cpus", {{"boot_vcpus", 2}, {"max_vcpus", 2}}},
        {"memory", {{"size", GetParam()}}},
        {"payload",
         {{"kernel", kernel_},
          {"initramfs", initramfs_},
          {"cmdline",
           "root=/dev/vda rw console=ttyS0 panic=-1 clocksource=kvm-clock quiet "
           "dormouse.fake=touch-mib=20"}}},
        {"disks",
         json::array(
             {{{"id", "disk0"}, {"path", disk_}, {"image_type", "Raw"}, {"sparse", false}}})},
        {"vsock", {{"id", "vsock0"}, {"cid", 3}, {"socket", home + "/vsock.sock"}}},
        {"serial", {{"mode", "Socket"}, {"socket", home + "/serial.sock"}}},
        {"console", {{"mode", "Off"}}}};
    if (vmm == nullptr || !Put(*vmm, "vm.create", config.dump()) || !Put(*vmm, "vm.boot", "")) {
      ADD_FAILURE() << "no VM to snapshot";
      return nullptr;
    }
    AwaitGuest(*vmm);
    EXPECT_OK(vmm->api().Pause());
    return vmm;
  }

  // From `generation`, which was made of another VMM that is gone by now.
  std::unique_ptr<VmmProcess> RestoreAndPause(const std::string& generation,
                                              const std::string& memory, vmm::RestoreMemory mode) {
    const std::string home = Directory("restore");
    vmm::RestoreEdits edits;
    edits.memory = mode;
    edits.memory_file = memory;
    edits.disk = disk_;
    edits.vsock_socket = home + "/vsock.sock";
    edits.serial_socket = home + "/serial.sock";
    edits.kernel = kernel_;
    edits.initramfs = initramfs_;
    const auto texts = vmm::PrepareRestore(
        ReadFile(generation + "/config.json", vmm::kMaxConfigBytes).value_or(""),
        ReadFile(generation + "/state.json", vmm::kMaxStateBytes).value_or(""), edits);
    EXPECT_OK(texts);
    if (!texts) return nullptr;
    EXPECT_OK(WriteFileAtomically(home + "/config.json", texts->config_json));
    EXPECT_OK(WriteFileAtomically(home + "/state.json", texts->state_json));
    if (mode == vmm::RestoreMemory::kCopy) fs::create_hard_link(memory, home + "/memory-ranges");
    auto vmm = VmmProcess::Start(home);
    if (vmm == nullptr) return nullptr;
    EXPECT_OK(vmm->api().Restore({home, true}));
    AwaitGuest(*vmm);
    EXPECT_OK(vmm->api().Pause());
    return vmm;
  }

  // State only and our dump beside it, then the stock snapshot of the same paused VM. Returns the
  // directory, whose "memory" is ours.
  std::string CaptureAndCompare(const VmmProcess& vmm, const std::optional<std::string>& previous,
                                DumpResult* dumped) {
    const std::string generation = Directory("generation");
    const std::string memory = generation + "/memory";
    if (!previous) {
      EXPECT_OK(MakeMemoryFile(std::nullopt, GetParam(), memory));
      WriteAhead(vmm, memory);
    }
    EXPECT_OK(vmm.api().SnapshotStateOnly(generation, host::Directory::Open(generation).value()));
    const auto command_line = vmm::ReadCommandLine(
        ReadFile(generation + "/config.json", vmm::kMaxConfigBytes).value_or(""));
    EXPECT_OK(command_line);
    const auto map =
        FindRam(vmm.process(), RangesIn(generation), previous, command_line.value_or(""));
    EXPECT_OK(map);
    if (!map) return generation;
    EXPECT_EQ(map->bytes, GetParam());
    LeaveInSwapAndHugePages(vmm, *map);
    // As the agent does: over the file that the VM stands on, which goes on to be captured again.
    if (previous) {
      EXPECT_OK(ContinueMemoryFile(*previous, map->bytes, memory));
    }
    const auto done = DumpDiverged(vmm.process(), *map, memory);
    EXPECT_OK(done);
    *dumped = done.value_or(DumpResult{});
    const std::string stock = Directory("stock");
    EXPECT_OK(vmm.api().Snapshot(stock));
    EXPECT_EQ(FirstDifference(memory, stock + "/memory-ranges"), std::nullopt);
    EXPECT_OK(RemoveTree(stock));
    return generation;
  }

  // The dump that follows meets both, where the machine has them.
  void LeaveInSwapAndHugePages(const VmmProcess& vmm, const RamMap& map) const {
    PageOut(vmm.pid(), map);
    if (!Environment("DORMOUSE_TEST_SWAP", "").empty()) {
      EXPECT_GT(KibOf(vmm.pid(), "status", "VmSwap"), 0u);
    }
    const std::string huge =
        ReadFile("/sys/kernel/mm/transparent_hugepage/enabled", 4096).value_or("[never]");
    // A mapping of a file has none, and the fake VMM asks for none.
    if (real_ && !map.from_file && huge.find("[never]") == std::string::npos) {
      EXPECT_GT(KibOf(vmm.pid(), "smaps_rollup", "AnonHugePages"), 0u);
    }
  }

  // While it runs, as the agent does with one that was booted.
  static void WriteAhead(const VmmProcess& vmm, const std::string& memory) {
    EXPECT_OK(vmm.api().Resume());
    const auto info = vmm.api().Info();
    EXPECT_OK(info);
    const auto command_line = vmm::ReadCommandLine(info ? info->config_json : "");
    EXPECT_OK(command_line);
    const auto map =
        FindRam(vmm.process(), BootRanges(GetParam()), std::nullopt, command_line.value_or(""));
    EXPECT_OK(map);
    if (map) {
      const auto written = DumpAhead(vmm.process(), *map, memory);
      EXPECT_OK(written);
      EXPECT_GT(written.value_or(0), 0u);
    }
    AwaitGuest(vmm);
    EXPECT_OK(vmm.api().Pause());
  }

  static void Kill(std::unique_ptr<VmmProcess> vmm) {
    vmm->Signal(SIGKILL);
    EXPECT_NE(vmm->Wait(), -1);
  }

  std::string Directory(const std::string& name) {
    const std::string path = scratch_ / (name + std::to_string(++directories_));
    EXPECT_OK(MakeDirectories(path));
    return path;
  }

  ScratchDirectory scratch_;
  std::string disk_ = scratch_ / "disk";
  std::string kernel_, initramfs_;
  bool real_ = false;
  int directories_ = 0;

 private:
  static bool Put(const VmmProcess& vmm, const std::string& endpoint, const std::string& body) {
    std::string request = "PUT /api/v1/" + endpoint + " HTTP/1.1\r\nHost: localhost\r\n";
    if (!body.empty()) request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    return test::Exchange(vmm.api_socket(), request + "\r\n" + body).starts_with("HTTP/1.1 204");
  }
};

TEST_P(MemoryOracleTest, OurDumpIsTheVmmsOwnOverGenerations) {
  DumpResult dumped;
  auto vmm = BootAndPause();
  ASSERT_NE(vmm, nullptr);
  std::string generation = CaptureAndCompare(*vmm, std::nullopt, &dumped);
  ASSERT_FALSE(HasFailure());
  EXPECT_LE(dumped.diverged_bytes, GetParam());
  Kill(std::move(vmm));

  // The fake reads all of a mapped guest for a stock snapshot.
  const int wakes = GetParam() < 1024 * kMiB ? 3 : 1;
  for (int wake = 1; wake <= wakes; ++wake) {
    const std::string memory = generation + "/memory";
    vmm = RestoreAndPause(generation, memory, vmm::RestoreMemory::kCopyOnWrite);
    ASSERT_NE(vmm, nullptr);
    generation = CaptureAndCompare(*vmm, memory, &dumped);
    ASSERT_FALSE(HasFailure()) << "after wake " << wake;
    EXPECT_GT(dumped.diverged_bytes, 0u);
    EXPECT_LT(dumped.diverged_bytes, GetParam() / 4) << "only what changed";
    Kill(std::move(vmm));
  }
}

TEST_P(MemoryOracleTest, ACopyOfAMappedGuestIsDumpedAnewAndTheSame) {
  DumpResult dumped;
  auto vmm = BootAndPause();
  ASSERT_NE(vmm, nullptr);
  const std::string first = CaptureAndCompare(*vmm, std::nullopt, &dumped);
  ASSERT_FALSE(HasFailure());
  Kill(std::move(vmm));
  vmm = RestoreAndPause(first, first + "/memory", vmm::RestoreMemory::kCopy);
  ASSERT_NE(vmm, nullptr);
  CaptureAndCompare(*vmm, std::nullopt, &dumped);
  EXPECT_GT(dumped.written_bytes, 0u);
  Kill(std::move(vmm));
}

// One range of RAM, and two, which the kernel may have made one mapping of.
// No range of 256: in a fake VMM built with it, AddressSanitizer has a mapping of that size, too.
INSTANTIATE_TEST_SUITE_P(Sizes, MemoryOracleTest, ::testing::Values(320 * kMiB, 3392 * kMiB));

}  // namespace
}  // namespace dormouse::memory
