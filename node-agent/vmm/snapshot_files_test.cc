#include "node-agent/vmm/snapshot_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "node-agent/host/test_support.h"
#include "node-agent/vmm/vm_config.h"
#include "src/common/base/files.h"
#include "src/common/base/units.h"
#include "tests/fakes/fake-cloud-hypervisor/config.h"
#include "tests/fakes/fake-cloud-hypervisor/snapshot_files.h"

namespace dormouse::vmm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// As v53.0 writes it after a boot of a machine of ours with 4 GiB, shortened to what has a value.
constexpr char kConfig[] = R"({"cpus":{"boot_vcpus":2,"max_vcpus":2,"kvm_hyperv":false,
"max_phys_bits":46,"nested":true},"memory":{"size":4294967296,"mergeable":false,
"hotplug_method":"Acpi","shared":false,"hugepages":false,"prefault":false,"reserve":false,
"thp":true},"payload":{"kernel":"/vmm/kernel","cmdline":"root=/dev/vda rw","initramfs":
"/vmm/initramfs"},"disks":[{"id":"disk0","pci_segment":0,"path":"/dev/disk","readonly":false,
"direct":false,"num_queues":1,"queue_size":128,"vhost_user":false,"disable_io_uring":false,
"disable_aio":false,"backing_files":false,"sparse":false,"image_type":"Raw","lock_granularity":
"ByteRange"}],"net":[{"id":"net0","pci_segment":0,"tap":"tap0","mac":"02:fc:00:00:00:05",
"host_mac":"5e:0d:c1:11:22:33","num_queues":2,"queue_size":256,"vhost_user":false,"vhost_mode":
"Client","offload_tso":true,"offload_ufo":true,"offload_csum":true}],"rng":{"src":"/dev/urandom"},
"serial":{"mode":"Socket","iommu":false,"socket":"/vm/serial.sock"},"console":{"mode":"Off",
"iommu":false},"debug_console":{"mode":"Off","iobase":233},"vsock":{"id":"vsock0","pci_segment":0,
"cid":3,"socket":"/vm/vsock.sock"},"pvpanic":false,"iommu":false,"watchdog":false,
"landlock_enable":false})";

constexpr char kMemory[] = R"({"memory_ranges":{"data":[{"gpa":0,"length":3221225472},
{"gpa":4294967296,"length":1073741824}]},"guest_ram_mappings":[{"slot":0,"gpa":0,
"size":3221225472,"zone_id":"mem0","virtio_mem":false,"file_offset":0},{"slot":1,
"gpa":4294967296,"size":1073741824,"zone_id":"mem0","virtio_mem":false,"file_offset":0}],
"start_of_device_area":5368709120,"boot_ram":4294967296,"current_ram":4294967296,
"arch_mem_regions":[{"base":0,"size":3221225472,"r_type":"Ram"},{"base":4294967296,
"size":18446744073709551615,"r_type":"Ram"},{"base":3221225472,"size":671088640,
"r_type":"SubRegion"},{"base":3892314112,"size":268435456,"r_type":"Reserved"}],
"hotplug_slots":[{"base":0,"length":0,"active":false,"inserting":false,"removing":false}],
"next_memory_slot":2,"selected_slot":0,"next_hotplug_slot":0})";

constexpr char kDisk[] = R"({"disk_path":"/dev/disk","disk_nsectors":4194304,"avail_features":
5771370068,"acked_features":5771370068,"config":{"capacity":4194304,"num_queues":1}})";

// Not one of ours to parse: it must come out as it went in, numbers of any kind included.
constexpr char kCpu[] = R"({ "tsc_khz": 2.5e6,  "msrs": [18446744073709551616, -0.0] })";

json Node(const std::string& state, const json& children = json::object()) {
  return {{"snapshots", children}, {"snapshot_data", {{"state", state}}}};
}

json State(const std::string& memory = kMemory) {
  return {
      {"snapshots",
       {{"cpu-manager", Node("{}", {{"0", Node(kCpu)}})},
        {"memory-manager", Node(memory)},
        {"device-manager", Node(R"({"device_tree":{},"device_id_cnt":7})",
                                {{"disk0", Node(kDisk)},
                                 {"_virtio-pci-disk0", Node(R"({"device_activated":true})")},
                                 {"vsock0", Node(R"({"avail_features":1,"connections":[]})")}})}}},
      {"snapshot_data", {{"state", R"({"clock":{"clock":1}})"}}}};
}

json MemoryOf(const std::string& state) {
  return json::parse(json::parse(state)["snapshots"]["memory-manager"]["snapshot_data"]["state"]
                         .get<std::string>());
}

// kMemory with one change.
std::string Altered(const std::string& pointer, const json& value) {
  json memory = json::parse(kMemory);
  memory[json::json_pointer(pointer)] = value;
  return memory.dump();
}

std::string AlteredConfig(const std::string& pointer, const json& value) {
  json config = json::parse(kConfig);
  config[json::json_pointer(pointer)] = value;
  return config.dump();
}

RestoreEdits Edits() {
  RestoreEdits edits;
  edits.memory_file = "/vm/memory";
  edits.disk = "/dev/clone-disk";
  edits.vsock_socket = "/vm/clone-vsock.sock";
  edits.serial_socket = "/vm/clone-serial.sock";
  edits.kernel = "/vmm/clone-kernel";
  edits.initramfs = "/vmm/clone-initramfs";
  return edits;
}

template <typename T>
ErrorCode CodeOf(const Result<T>& result) {
  return result ? ErrorCode::kInternal : result.error().code();
}

TEST(StateSummaryTest, RangesFollowEachOtherInTheMemoryFile) {
  const auto summary = ReadStateSummary(State().dump());
  ASSERT_OK(summary);
  EXPECT_EQ(summary->memory_bytes, 4 * kGiB);
  EXPECT_EQ(summary->ranges,
            (std::vector<RamRange>{{0, 3 * kGiB, 0, 0}, {4 * kGiB, kGiB, 1, 3 * kGiB}}));
}

TEST(StateSummaryTest, WhatIsNotAMachineOfOursIsUnsupported) {
  const std::pair<const char*, json> cases[] = {
      {"/guest_ram_mappings/0/virtio_mem", true},
      {"/guest_ram_mappings/1/zone_id", "mem1"},
      {"/guest_ram_mappings/1/gpa", kGiB},                // overlaps
      {"/memory_ranges/data/0/length", 3 * kGiB - 4096},  // writes less than it maps
      {"/memory_ranges/data/1/gpa", 5 * kGiB},
      {"/boot_ram", 4e9},  // would come out as another number
  };
  for (const auto& [pointer, value] : cases) {
    EXPECT_EQ(CodeOf(ReadStateSummary(State(Altered(pointer, value)).dump())),
              ErrorCode::kUnsupported)
        << pointer;
  }
}

TEST(StateSummaryTest, WhatCannotBeIsCorrupt) {
  const std::pair<const char*, json> cases[] = {
      {"/guest_ram_mappings", json::array()},
      {"/guest_ram_mappings", 7},
      {"/guest_ram_mappings/0/size", 0},
      {"/guest_ram_mappings/0/size", -4096},
      {"/guest_ram_mappings/0/size", 4097},
      {"/guest_ram_mappings/1/size", ~uint64_t{0} - 4095},
      {"/guest_ram_mappings/1/gpa", ~uint64_t{0} - 4095},
      {"/guest_ram_mappings/1/slot", uint64_t{1} << 32},
      {"/memory_ranges/data", json::object({{"gpa", 0}})},
  };
  for (const auto& [pointer, value] : cases) {
    EXPECT_EQ(CodeOf(ReadStateSummary(State(Altered(pointer, value)).dump())), ErrorCode::kCorrupt)
        << pointer << " " << value;
  }
  json many = json::parse(kMemory);
  for (uint64_t i = 0; i < 100; ++i) {
    json mapping = many["guest_ram_mappings"][1];
    mapping["gpa"] = (8 + i) * kGiB;
    many["guest_ram_mappings"].push_back(mapping);
  }
  EXPECT_EQ(CodeOf(ReadStateSummary(State(many.dump()).dump())), ErrorCode::kCorrupt);
}

TEST(StateSummaryTest, ATornHostileOrHugeFileIsCorrupt) {
  const std::string whole = State().dump();
  for (size_t size = 0; size < whole.size(); size += 37) {
    EXPECT_EQ(CodeOf(ReadStateSummary(whole.substr(0, size))), ErrorCode::kCorrupt);
  }
  for (const std::string& text :
       {std::string("[]"), std::string("null"), std::string("{}"), std::string(100'000, '['),
        std::string(kMaxStateBytes + 1, ' '), State(std::string(100'000, '[')).dump(),
        State("{\"memory_ranges\":\xff}").dump(-1, ' ', false, json::error_handler_t::ignore)}) {
    EXPECT_EQ(CodeOf(ReadStateSummary(text)), ErrorCode::kCorrupt) << text.substr(0, 80);
  }
}

TEST(PrivateMemoryTest, OurMachinesHaveIt) {
  EXPECT_OK(CheckPrivateMemory(kConfig));
  VmConfig ours;
  ours.payload = {"/vmm/kernel", "/vmm/initramfs", ""};
  ours.disk.path = "/dev/disk";
  ours.vsock.socket = "/vm/vsock.sock";
  ours.serial_socket = "/vm/serial.sock";
  EXPECT_OK(CheckPrivateMemory(*ToJson(ours)));
}

TEST(PrivateMemoryTest, WhatWritesOrMapsItElsewhereIsNamed) {
  const std::pair<const char*, json> cases[] = {
      {"/memory/shared", true},
      {"/memory/hugepages", true},
      {"/memory/mergeable", true},
      {"/memory/hotplug_size", kGiB},
      {"/memory/zones", {{{"id", "a"}, {"size", kGiB}}, {{"id", "b"}, {"size", kGiB}}}},
      {"/memory/zones", {{{"id", "mem0"}, {"size", kGiB}, {"shared", true}}}},
      {"/balloon", {{"size", 0}}},
      {"/devices", {{{"path", "/sys/bus/pci/devices/0000:01:00.0"}}}},
      {"/fs", {{{"tag", "share"}}}},
      {"/pmem", {{{"file", "/x"}}}},
      {"/disks/0/vhost_user", true},
      {"/net/0/vhost_user", true},
      {"/net/0/fds", {3}},
  };
  for (const auto& [pointer, value] : cases) {
    EXPECT_EQ(CodeOf(CheckPrivateMemory(AlteredConfig(pointer, value))), ErrorCode::kUnsupported)
        << pointer;
    EXPECT_EQ(CodeOf(PrepareRestore(AlteredConfig(pointer, value), State().dump(), Edits())),
              ErrorCode::kUnsupported)
        << pointer;
  }
}

TEST(CommandLineTest, IsWhatTheVmmPutsIntoMemory) {
  EXPECT_EQ(ReadCommandLine(kConfig), "root=/dev/vda rw");
  EXPECT_EQ(ReadCommandLine(AlteredConfig("/payload/cmdline", " a b\n")), "a b");
  for (const json& none : {json(" "), json(""), json(nullptr)})
    EXPECT_EQ(ReadCommandLine(AlteredConfig("/payload/cmdline", none)), "");
  EXPECT_EQ(ReadCommandLine(AlteredConfig("/payload", nullptr)), "");
  EXPECT_EQ(ReadCommandLine("{}"), "");
  for (const std::string& bad : {AlteredConfig("/payload/cmdline", 7), std::string("{"),
                                 AlteredConfig("/payload", "text")}) {
    EXPECT_EQ(CodeOf(ReadCommandLine(bad)), ErrorCode::kCorrupt) << bad;
  }
}

TEST(PrepareRestoreTest, CopyOnWriteMapsTheMemoryFileAndCopiesNothing) {
  const auto texts = PrepareRestore(kConfig, State().dump(), Edits());
  ASSERT_OK(texts);
  const json config = json::parse(texts->config_json);
  json expected = json::parse(kConfig);
  expected["memory"]["size"] = 0;
  expected["memory"]["zones"] =
      json::parse(R"([{"id":"mem0","size":4294967296,"file":"/vm/memory","shared":false}])");
  expected["disks"][0]["path"] = "/dev/clone-disk";
  expected["net"][0].erase("host_mac");
  expected["vsock"]["socket"] = "/vm/clone-vsock.sock";
  expected["serial"]["socket"] = "/vm/clone-serial.sock";
  expected["payload"]["kernel"] = "/vmm/clone-kernel";
  expected["payload"]["initramfs"] = "/vmm/clone-initramfs";
  EXPECT_EQ(config, expected);

  json memory = json::parse(kMemory);
  memory["memory_ranges"]["data"] = json::array();
  memory["guest_ram_mappings"][1]["file_offset"] = 3 * kGiB;
  EXPECT_EQ(MemoryOf(texts->state_json), memory);
  json disk = json::parse(kDisk);
  disk["disk_path"] = "/dev/clone-disk";
  const json state = json::parse(texts->state_json);
  const json& devices = state["snapshots"]["device-manager"]["snapshots"];
  EXPECT_EQ(json::parse(devices["disk0"]["snapshot_data"]["state"].get<std::string>()), disk);
}

TEST(PrepareRestoreTest, WhatIsNotOursToEditPassesByteForByte) {
  const auto texts = PrepareRestore(kConfig, State().dump(), Edits());
  ASSERT_OK(texts);
  json state = json::parse(texts->state_json);
  json before = State();
  EXPECT_EQ(state["snapshots"]["cpu-manager"]["snapshots"]["0"]["snapshot_data"]["state"], kCpu);
  for (json* each : {&state, &before}) {
    (*each)["snapshots"].erase("memory-manager");
    (*each)["snapshots"]["device-manager"]["snapshots"].erase("disk0");
  }
  EXPECT_EQ(state, before);
}

TEST(PrepareRestoreTest, ACloneOfACloneAndACopyOfACloneComeOutTheSame) {
  const auto once = PrepareRestore(kConfig, State().dump(), Edits());
  ASSERT_OK(once);
  const auto twice = PrepareRestore(once->config_json, once->state_json, Edits());
  ASSERT_OK(twice);
  EXPECT_EQ(twice->config_json, once->config_json);
  EXPECT_EQ(twice->state_json, once->state_json);

  RestoreEdits copy = Edits();
  copy.memory = RestoreMemory::kCopy;
  copy.memory_file.clear();
  for (const auto& [config, state] :
       {std::pair(std::string(kConfig), State().dump()), {once->config_json, once->state_json}}) {
    const auto texts = PrepareRestore(config, state, copy);
    ASSERT_OK(texts);
    const json memory = json::parse(texts->config_json)["memory"];
    EXPECT_EQ(memory["size"], 4 * kGiB);
    EXPECT_FALSE(memory.contains("zones"));
    EXPECT_EQ(MemoryOf(texts->state_json), json::parse(kMemory));
  }
}

TEST(PrepareRestoreTest, FilesThatDisagreeOrLackADeviceAreRefused) {
  const auto sizes = PrepareRestore(AlteredConfig("/memory/size", kGiB), State().dump(), Edits());
  ASSERT_EQ(CodeOf(sizes), ErrorCode::kCorrupt);
  EXPECT_THAT(sizes.error().message(),
              HasSubstr("config.json has 1073741824 bytes of memory, state.json 4294967296"));
  EXPECT_EQ(CodeOf(PrepareRestore(AlteredConfig("/disks/0/id", "disk9"), State().dump(), Edits())),
            ErrorCode::kCorrupt);
  EXPECT_EQ(CodeOf(PrepareRestore(AlteredConfig("/disks", json::array()), State().dump(), Edits())),
            ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf(PrepareRestore(AlteredConfig("/vsock", nullptr), State().dump(), Edits())),
            ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf(PrepareRestore(AlteredConfig("/serial/mode", "File"), State().dump(), Edits())),
            ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf(PrepareRestore(AlteredConfig("/payload", nullptr), State().dump(), Edits())),
            ErrorCode::kCorrupt);
  const auto torn = PrepareRestore("{", State().dump(), Edits());
  ASSERT_EQ(CodeOf(torn), ErrorCode::kCorrupt);
  EXPECT_THAT(torn.error().message(), HasSubstr("config.json is malformed"));
}

TEST(PrepareRestoreTest, ARelativePathIsInvalid) {
  for (std::string RestoreEdits::*field :
       {&RestoreEdits::memory_file, &RestoreEdits::disk, &RestoreEdits::vsock_socket,
        &RestoreEdits::serial_socket, &RestoreEdits::kernel, &RestoreEdits::initramfs}) {
    RestoreEdits edits = Edits();
    edits.*field = "memory";
    EXPECT_EQ(CodeOf(PrepareRestore(kConfig, State().dump(), edits)), ErrorCode::kInvalid);
    (edits.*field).clear();
    EXPECT_EQ(CodeOf(PrepareRestore(kConfig, State().dump(), edits)), ErrorCode::kInvalid);
  }
}

TEST(PrepareRestoreTest, TheFakeVmmsFilesAreEditedLikeTheRealOnes) {
  const host::ScratchDirectory scratch;
  VmConfig ours;
  ours.memory_bytes = 4 * kGiB;
  ours.payload = {"/vmm/kernel", "/vmm/initramfs", ""};
  ours.disk.path = "/dev/disk";
  ours.vsock.socket = "/vm/vsock.sock";
  ours.serial_socket = "/vm/serial.sock";
  const auto config = fake_vmm::ParseConfig(*ToJson(ours));
  ASSERT_TRUE(config);
  const auto memory = fake_vmm::GuestMemory::Allocate(fake_vmm::RangesOf(4 * kGiB));
  ASSERT_TRUE(memory);
  std::vector<fake_vmm::Disk> disks(1);
  disks[0].path = "/dev/disk";
  ASSERT_TRUE(fake_vmm::WriteConfigAndState(scratch.path(), *config, **memory, disks));

  const auto texts = PrepareRestore(*ReadFile(scratch / "config.json", kMaxConfigBytes),
                                    *ReadFile(scratch / "state.json", kMaxStateBytes), Edits());
  ASSERT_OK(texts);
  ASSERT_OK(WriteFileAtomically(scratch / "config.json", texts->config_json));
  ASSERT_OK(WriteFileAtomically(scratch / "state.json", texts->state_json));
  const auto saved = fake_vmm::ReadSnapshotState(scratch.path());
  ASSERT_TRUE(saved);
  EXPECT_TRUE(saved->to_copy.empty());
  ASSERT_EQ(saved->mappings.size(), 2u);
  EXPECT_EQ(saved->mappings[1].file_offset, 3 * kGiB);
  const auto restored = fake_vmm::ReadSnapshotConfig(scratch.path());
  ASSERT_TRUE(restored);
  EXPECT_EQ((*restored)["memory"]["zones"][0]["file"], "/vm/memory");
  EXPECT_EQ((*restored)["disks"][0]["path"], "/dev/clone-disk");
}

}  // namespace
}  // namespace dormouse::vmm
