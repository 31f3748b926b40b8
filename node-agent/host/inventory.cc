#include "node-agent/host/inventory.h"

#include <algorithm>
#include <tuple>

#include "node-agent/host/netlink.h"
#include "node-agent/host/netns.h"

namespace dormouse::host {
namespace {

constexpr char kVethPrefix[] = "dmv";
constexpr size_t kShortIdLength = 12;

bool IsShortId(const std::string& text) {
  return text.size() == kShortIdLength &&
         text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Result<> AddBlockDevices(const InventorySources& sources, std::vector<InventoryItem>* items) {
  if (sources.dm != nullptr) {
    DORMOUSE_ASSIGN(const auto devices, sources.dm->List(kDmPrefix));
    for (const auto& device : devices) {
      items->push_back(
          {"dm", device.name, ShortIdIn(device.name), "open " + std::to_string(device.open_count)});
    }
  }
  if (sources.loops != nullptr) {
    DORMOUSE_ASSIGN(const auto loops, sources.loops->List(kLoopPrefix));
    for (const auto& loop : loops) {
      items->push_back(
          {"loop", "loop" + std::to_string(loop.index), ShortIdIn(loop.tag), loop.tag});
    }
  }
  return {};
}

Result<> AddNetwork(const InventorySources& sources, std::vector<InventoryItem>* items) {
  if (sources.host != nullptr && !sources.netns_directory.empty()) {
    DORMOUSE_ASSIGN(const auto names, ListNetNs(*sources.host, sources.netns_directory));
    for (const auto& name : names)
      items->push_back({"netns", name, IsShortId(name) ? name : "", ""});
  }
  DORMOUSE_ASSIGN(RouteSocket socket, RouteSocket::Open());
  DORMOUSE_ASSIGN(const auto links, socket.ListLinks(kVethPrefix));
  for (const auto& link : links)
    items->push_back({"veth", link.name, ShortIdIn(link.name), link.alias});
  return {};
}

Result<> AddMounts(const std::string& vm_directories, std::vector<InventoryItem>* items) {
  DORMOUSE_ASSIGN(const auto names, MountPointsIn(vm_directories));
  for (const auto& name : names)
    items->push_back({"mount", vm_directories + "/" + name, IsShortId(name) ? name : "", ""});
  return {};
}

Result<> AddCgroups(const Cgroups& cgroups, std::vector<InventoryItem>* items) {
  DORMOUSE_ASSIGN(const auto names, cgroups.List());
  for (const auto& name : names) {
    const std::string id = IsShortId(name) ? name : "";
    items->push_back({"cgroup", name, id, ""});
    DORMOUSE_ASSIGN(const auto pids, cgroups.Processes(name));
    for (const pid_t pid : pids)
      items->push_back({"process", std::to_string(pid), id, "in cgroup " + name});
  }
  return {};
}

}  // namespace

std::string ShortIdIn(const std::string& name) {
  std::string id;
  if (name.starts_with(kVethPrefix)) {
    id = name.substr(sizeof(kVethPrefix) - 1);
  } else if (name.starts_with(kDmPrefix) && (name.ends_with("-root") || name.ends_with("-store"))) {
    id = name.substr(kDmPrefix.size(), name.rfind('-') - kDmPrefix.size());
  }
  return IsShortId(id) ? id : "";
}

Result<std::vector<InventoryItem>> ListAll(const InventorySources& sources) {
  std::vector<InventoryItem> items;
  DORMOUSE_TRY(AddBlockDevices(sources, &items));
  DORMOUSE_TRY(AddNetwork(sources, &items));
  if (!sources.vm_directories.empty()) DORMOUSE_TRY(AddMounts(sources.vm_directories, &items));
  if (sources.cgroups != nullptr) DORMOUSE_TRY(AddCgroups(*sources.cgroups, &items));
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
    return std::tie(a.kind, a.name) < std::tie(b.kind, b.name);
  });
  return items;
}

}  // namespace dormouse::host
