#include "tests/fakes/fake-cloud-hypervisor/snapshot_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "src/common/base/files.h"
#include "tests/fakes/fake-cloud-hypervisor/config.h"

namespace dormouse::fake_vmm {
namespace {

using nlohmann::json;

constexpr size_t kMaxSnapshotFileBytes = size_t{16} << 20;

Outcome<> WriteNew(const std::string& path, const std::string& what, const std::string& text) {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!file) return Refuse({"Error creating VM " + what + " snapshot file", OsCause(errno)});
  // How much of it was written v53.0 does not look at.
  if (::write(file.get(), text.data(), text.size()) < 0) {
    return Refuse({"Error writing VM " + what + " snapshot", OsCause(errno)});
  }
  return {};
}

json Node(const json& state, json children = json::object()) {
  return {{"snapshots", std::move(children)}, {"snapshot_data", {{"state", state.dump()}}}};
}

json MemoryState(const GuestMemory& memory) {
  json ranges = json::array();
  json mappings = json::array();
  json regions = json::array();
  uint32_t slot = 0;
  for (const MemoryRange& range : memory.ranges()) {
    ranges.push_back({{"gpa", range.gpa}, {"length", range.length}});
    mappings.push_back({{"slot", slot++},
                        {"gpa", range.gpa},
                        {"size", range.length},
                        {"zone_id", "mem0"},
                        {"virtio_mem", false},
                        {"file_offset", range.file_offset}});
    regions.push_back({{"base", range.gpa}, {"size", range.length}, {"r_type", "Ram"}});
  }
  return {{"memory_ranges", {{"data", ranges}}},
          {"guest_ram_mappings", mappings},
          {"start_of_device_area", uint64_t{64} << 30},
          {"boot_ram", memory.bytes()},
          {"current_ram", memory.bytes()},
          {"arch_mem_regions", regions},
          {"hotplug_slots", json::array()},
          {"next_memory_slot", slot},
          {"selected_slot", 0},
          {"next_hotplug_slot", 0}};
}

Outcome<json> ReadJson(const std::string& path, const std::string& what) {
  const auto text = ReadFile(path, kMaxSnapshotFileBytes);
  if (!text) {
    return Refuse({"Error opening VM " + what + " snapshot file " + Quoted(path),
                   OsCause(text.error().errnum())});
  }
  json parsed = json::parse(*text, nullptr, false);
  if (parsed.is_discarded())
    return Refuse({"Error deserialising VM " + what + " snapshot", "EOF while parsing a value"});
  return parsed;
}

}  // namespace

Outcome<std::string> DirectoryOf(const std::string& url) {
  if (!url.starts_with("file://")) {
    return Refuse({"Failed to send migratable component snapshot",
                   "Could not extract path from URL: " + url});
  }
  std::string directory = url.substr(7);
  struct stat info {};
  if (::stat(directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) {
    return Refuse({"Failed to send migratable component snapshot",
                   "Destination is not a directory: " + Quoted(directory)});
  }
  return directory;
}

Outcome<> WriteConfigAndState(const std::string& directory, const json& config,
                              const GuestMemory& memory, const std::vector<Disk>& disks) {
  if (auto written = WriteNew(directory + "/config.json", "config", config.dump()); !written)
    return written;

  json devices = json::object();
  if (config.contains("disks")) {
    for (size_t i = 0; i < disks.size(); ++i) {
      const std::string id = config["disks"][i].value("id", "_disk" + std::to_string(i));
      const auto bytes = static_cast<uint64_t>(::lseek(disks[i].fd.get(), 0, SEEK_END));
      devices[id] = Node({{"disk_path", disks[i].path},
                          {"disk_nsectors", bytes / 512},
                          {"avail_features", 0},
                          {"acked_features", 0}});
    }
  }
  if (config.contains("net")) {
    for (const json& net : config["net"]) {
      devices[net.value("id", "_net1")] =
          Node({{"avail_features", 0}, {"config", {{"mac", net.value("mac", "")}}}});
    }
  }
  if (config.contains("vsock")) {
    devices[config["vsock"].value("id", "_vsock2")] =
        Node({{"avail_features", 0}, {"connections", json::array()}});
  }
  const json state = Node({{"clock", nullptr}, {"common_cpuid", json::array()}},
                          {{"cpu-manager", Node(json::object())},
                           {"memory-manager", Node(MemoryState(memory))},
                           {"device-manager", Node(json::object(), devices)}});
  return WriteNew(directory + "/state.json", "state", state.dump());
}

Outcome<json> ReadSnapshotConfig(const std::string& directory) {
  auto raw = ReadJson(directory + "/config.json", "config");
  if (!raw) return raw;
  auto config = ParseConfig(raw->dump());
  if (!config) return Refuse({"Error deserialising VM config snapshot", config.error()});
  return std::move(*config);
}

Outcome<SavedMemory> ReadSnapshotState(const std::string& directory) {
  auto tree = ReadJson(directory + "/state.json", "state");
  if (!tree) return tl::unexpected<Refusal>(tree.error());
  try {
    const json state = json::parse(tree->at("snapshots")
                                       .at("memory-manager")
                                       .at("snapshot_data")
                                       .at("state")
                                       .get<std::string>());
    SavedMemory saved;
    for (const json& range : state.at("memory_ranges").at("data")) {
      saved.to_copy.push_back(
          {range.at("gpa").get<uint64_t>(), range.at("length").get<uint64_t>(), 0});
    }
    for (const json& mapping : state.at("guest_ram_mappings")) {
      saved.mappings.push_back({mapping.at("gpa").get<uint64_t>(),
                                mapping.at("size").get<uint64_t>(),
                                mapping.at("file_offset").get<uint64_t>()});
    }
    if (saved.mappings.empty())
      return Refuse({"Error deserialising VM state snapshot", "no guest_ram_mappings"});
    return saved;
  } catch (const json::exception& error) {
    return Refuse({"Error deserialising VM state snapshot", error.what()});
  }
}

}  // namespace dormouse::fake_vmm
