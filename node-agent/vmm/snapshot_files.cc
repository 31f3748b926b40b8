#include "node-agent/vmm/snapshot_files.h"

#include <nlohmann/json.hpp>

#include "src/common/base/json_text.h"

namespace dormouse::vmm {
namespace {

// Keeps the order of keys, so that what we do not touch stays as it was.
using nlohmann::ordered_json;

constexpr char kZone[] = "mem0";  // the VMM's name of the zone that `size` makes (v53.0)
constexpr uint64_t kPage = 4096;
constexpr size_t kMaxRanges = 64;

tl::unexpected<Error> Unsupported(const std::string& why) {
  return Fail(ErrorCode::kUnsupported, "snapshot: " + why);
}

tl::unexpected<Error> Corrupt(const std::string& file, const std::string& why) {
  return Fail(ErrorCode::kCorrupt, "snapshot: " + file + " " + why);
}

// A number that is no 64-bit integer is read as a double, and would be written as another one.
bool HasFraction(const ordered_json& value) {
  if (value.is_number_float()) return true;
  if (!value.is_structured()) return false;
  for (const ordered_json& element : value) {
    if (HasFraction(element)) return true;
  }
  return false;
}

// The deepest that the VMM writes is 7; what a guest made it write may not exhaust our stack.
constexpr int kMaxDepth = 64;

Result<ordered_json> Parse(const std::string& file, std::string_view text, size_t max_bytes) {
  if (text.size() > max_bytes) {
    return Corrupt(file, "is larger than " + std::to_string(max_bytes) + " bytes");
  }
  bool deep = false;
  const auto limit = [&deep](int depth, ordered_json::parse_event_t, ordered_json&) {
    deep = deep || depth > kMaxDepth;
    return !deep;
  };
  try {
    ordered_json parsed = ordered_json::parse(text, limit);
    if (deep || !parsed.is_object()) return Corrupt(file, "is not what the VMM writes");
    if (HasFraction(parsed)) return Unsupported(file + " holds a number that is not an integer");
    return parsed;
  } catch (const ordered_json::exception& error) {
    return Corrupt(file, std::string("is malformed: ") + error.what());
  }
}

// get<uint64_t>() would take a negative number or a boolean.
uint64_t Number(const ordered_json& object, const char* key) {
  const ordered_json& value = object.at(key);
  if (!value.is_number_unsigned()) throw std::invalid_argument(key);
  return value.get<uint64_t>();
}

// The string that holds the state of the node `name` below `parent`.
std::string& StateText(ordered_json& parent, const std::string& name) {
  return parent.at("snapshots").at(name).at("snapshot_data").at("state").get_ref<std::string&>();
}

StateSummary Summarize(const ordered_json& memory, std::string* unsupported) {
  StateSummary summary;
  for (const ordered_json& mapping : memory.at("guest_ram_mappings")) {
    if (mapping.at("virtio_mem").get<bool>()) *unsupported = "its memory is hotplugged";
    if (mapping.at("zone_id").get<std::string>() != kZone) *unsupported = "it has memory zones";
    const uint64_t slot = Number(mapping, "slot");
    const RamRange range = {Number(mapping, "gpa"), Number(mapping, "size"),
                            static_cast<uint32_t>(slot), summary.memory_bytes};
    if (slot > UINT32_MAX || range.length == 0 || range.length % kPage != 0 ||
        range.gpa % kPage != 0 || range.gpa + range.length < range.gpa ||
        summary.memory_bytes + range.length < range.length) {
      throw std::invalid_argument("guest_ram_mappings");
    }
    if (!summary.ranges.empty() &&
        range.gpa < summary.ranges.back().gpa + summary.ranges.back().length) {
      *unsupported = "its memory is not in order of address";
    }
    summary.memory_bytes += range.length;
    summary.ranges.push_back(range);
  }
  if (summary.ranges.empty() || summary.ranges.size() > kMaxRanges) {
    throw std::invalid_argument("guest_ram_mappings");
  }
  return summary;
}

// memory_ranges is what the VMM writes to the memory file: all, in our order, or the file is not
// laid out as we think. An edited state, of a clone that was never captured, has none.
bool CoversAll(const ordered_json& memory, const StateSummary& summary) {
  const ordered_json& data = memory.at("memory_ranges").at("data");
  if (!data.is_array()) throw std::invalid_argument("memory_ranges");
  if (data.empty()) return true;
  if (data.size() != summary.ranges.size()) return false;
  for (size_t i = 0; i < data.size(); ++i) {
    if (Number(data[i], "gpa") != summary.ranges[i].gpa ||
        Number(data[i], "length") != summary.ranges[i].length) {
      return false;
    }
  }
  return true;
}

Result<StateSummary> SummaryOf(const ordered_json& memory) {
  std::string unsupported;
  StateSummary summary = Summarize(memory, &unsupported);
  if (unsupported.empty() && !CoversAll(memory, summary)) {
    unsupported = "the ranges that it writes are not those that are mapped";
  }
  if (!unsupported.empty()) return Unsupported(unsupported);
  return summary;
}

Result<ordered_json> MemoryState(ordered_json& state) {
  return Parse("state.json's memory-manager", StateText(state, "memory-manager"), kMaxStateBytes);
}

bool IsSet(const ordered_json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return false;
  if (found->is_boolean()) return found->get<bool>();
  if (found->is_structured()) return !found->empty();
  return true;
}

Result<> CheckMemoryConfig(const ordered_json& memory) {
  for (const char* key :
       {"shared", "hugepages", "hugepage_size", "mergeable", "hotplug_size", "hotplugged_size"}) {
    if (IsSet(memory, key)) return Unsupported(std::string("its memory has ") + key);
  }
  if (!IsSet(memory, "zones")) return {};
  if (memory.at("zones").size() != 1) return Unsupported("it has memory zones");
  const ordered_json& zone = memory.at("zones")[0];
  for (const char* key : {"shared", "hugepages", "hugepage_size", "mergeable", "hotplug_size",
                          "hotplugged_size", "host_numa_node"}) {
    if (IsSet(zone, key)) return Unsupported(std::string("its memory zone has ") + key);
  }
  return {};
}

Result<> CheckConfig(const ordered_json& config) {
  DORMOUSE_TRY(CheckMemoryConfig(config.at("memory")));
  for (const char* key : {"balloon", "devices", "user_devices", "vdpa", "fs", "generic_vhost_user",
                          "pmem", "numa", "ivshmem", "pvmemcontrol"}) {
    if (IsSet(config, key)) return Unsupported(std::string("it has ") + key);
  }
  for (const char* kind : {"disks", "net"}) {
    if (!IsSet(config, kind)) continue;
    for (const ordered_json& device : config.at(kind)) {
      if (IsSet(device, "vhost_user")) return Unsupported(std::string(kind) + " have vhost_user");
      if (IsSet(device, "fds")) return Unsupported(std::string(kind) + " are file descriptors");
    }
  }
  return {};
}

Result<> CheckEdits(const RestoreEdits& edits) {
  std::vector<const std::string*> paths = {&edits.disk, &edits.vsock_socket, &edits.serial_socket,
                                           &edits.kernel, &edits.initramfs};
  if (edits.memory == RestoreMemory::kCopyOnWrite) paths.push_back(&edits.memory_file);
  for (const std::string* path : paths) {
    if (path->empty() || path->front() != '/' || path->find('\0') != std::string::npos) {
      return Fail(ErrorCode::kInvalid, "restore: not an absolute path: \"" + *path + "\"");
    }
  }
  return {};
}

Result<> EditMemory(const StateSummary& summary, const RestoreEdits& edits, ordered_json* config,
                    ordered_json* memory_state) {
  ordered_json& memory = config->at("memory");
  uint64_t configured = Number(memory, "size");
  if (IsSet(memory, "zones")) configured += Number(memory.at("zones")[0], "size");
  if (configured != summary.memory_bytes) {
    return Corrupt("config.json", "has " + std::to_string(configured) +
                                      " bytes of memory, state.json " +
                                      std::to_string(summary.memory_bytes));
  }
  const bool mapped = edits.memory == RestoreMemory::kCopyOnWrite;
  ordered_json to_copy = ordered_json::array();
  for (size_t i = 0; i < summary.ranges.size(); ++i) {
    const RamRange& range = summary.ranges[i];
    memory_state->at("guest_ram_mappings")[i]["file_offset"] = mapped ? range.file_offset : 0;
    if (!mapped) to_copy.push_back({{"gpa", range.gpa}, {"length", range.length}});
  }
  memory_state->at("memory_ranges")["data"] = std::move(to_copy);
  // Reading all of the file beforehand is what the mapping is to save.
  memory["prefault"] = false;
  memory["size"] = mapped ? 0 : summary.memory_bytes;
  memory.erase("zones");
  if (mapped) {
    memory["zones"] = ordered_json::array({{{"id", kZone},
                                            {"size", summary.memory_bytes},
                                            {"file", edits.memory_file},
                                            {"shared", false}}});
  }
  return {};
}

Result<> EditDevices(const RestoreEdits& edits, ordered_json* config, ordered_json* state) {
  if (!IsSet(*config, "disks") || config->at("disks").size() != 1) {
    return Unsupported("it has other than one disk");
  }
  if (!IsSet(*config, "vsock")) return Unsupported("it has no vsock");
  if (config->at("serial").at("mode") != "Socket") return Unsupported("its serial is no socket");
  ordered_json& disk = config->at("disks")[0];
  disk.at("path") = edits.disk;
  ordered_json& devices = state->at("snapshots").at("device-manager");
  std::string& disk_text = StateText(devices, disk.at("id").get<std::string>());
  DORMOUSE_ASSIGN(ordered_json disk_state, Parse("state.json's disk", disk_text, kMaxStateBytes));
  disk_state.at("disk_path") = edits.disk;
  disk_text = JsonText(disk_state);
  config->at("vsock").at("socket") = edits.vsock_socket;
  config->at("serial").at("socket") = edits.serial_socket;
  config->at("payload").at("kernel") = edits.kernel;
  config->at("payload").at("initramfs") = edits.initramfs;
  if (!IsSet(*config, "net")) return {};
  for (ordered_json& net : config->at("net")) net.erase("host_mac");
  return {};
}

// nlohmann's exceptions, and ours for a value out of range, end here.
template <typename Function>
auto Guarded(Function function) -> decltype(function()) {
  try {
    return function();
  } catch (const std::exception& error) {
    return Fail(ErrorCode::kCorrupt,
                std::string("snapshot: not what the VMM writes: ") + error.what());
  }
}

}  // namespace

Result<StateSummary> ReadStateSummary(std::string_view state_json) {
  return Guarded([&]() -> Result<StateSummary> {
    DORMOUSE_ASSIGN(ordered_json state, Parse("state.json", state_json, kMaxStateBytes));
    DORMOUSE_ASSIGN(const ordered_json memory, MemoryState(state));
    return SummaryOf(memory);
  });
}

Result<> CheckPrivateMemory(std::string_view config_json) {
  return Guarded([&]() -> Result<> {
    DORMOUSE_ASSIGN(const ordered_json config, Parse("config.json", config_json, kMaxConfigBytes));
    return CheckConfig(config);
  });
}

Result<std::string> ReadCommandLine(std::string_view config_json) {
  return Guarded([&]() -> Result<std::string> {
    DORMOUSE_ASSIGN(const ordered_json config, Parse("config.json", config_json, kMaxConfigBytes));
    const auto payload = config.find("payload");
    if (payload == config.end() || payload->is_null()) return std::string();
    if (!payload->is_object()) throw std::invalid_argument("payload");
    const auto found = payload->find("cmdline");
    if (found == payload->end() || found->is_null()) return std::string();
    const std::string text = found->get<std::string>();
    constexpr std::string_view kSpace = " \t\n\v\f\r";
    const auto first = text.find_first_not_of(kSpace);
    if (first == std::string::npos) return std::string();
    return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
  });
}

Result<RestoreTexts> PrepareRestore(std::string_view config_json, std::string_view state_json,
                                    const RestoreEdits& edits) {
  DORMOUSE_TRY(CheckEdits(edits));
  return Guarded([&]() -> Result<RestoreTexts> {
    DORMOUSE_ASSIGN(ordered_json config, Parse("config.json", config_json, kMaxConfigBytes));
    DORMOUSE_ASSIGN(ordered_json state, Parse("state.json", state_json, kMaxStateBytes));
    DORMOUSE_TRY(CheckConfig(config));
    DORMOUSE_ASSIGN(ordered_json memory, MemoryState(state));
    DORMOUSE_ASSIGN(const StateSummary summary, SummaryOf(memory));
    DORMOUSE_TRY(EditMemory(summary, edits, &config, &memory));
    DORMOUSE_TRY(EditDevices(edits, &config, &state));
    StateText(state, "memory-manager") = JsonText(memory);
    return RestoreTexts{JsonText(config), JsonText(state)};
  });
}

}  // namespace dormouse::vmm
