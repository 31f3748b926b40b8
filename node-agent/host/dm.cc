#include "node-agent/host/dm.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "node-agent/host/device_node.h"
#include "node-agent/host/dm_ioctl.h"
#include "node-agent/host/sparse_files.h"
#include "src/common/base/files.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {
namespace {

constexpr char kControlNode[] = "/dev/mapper/control";
constexpr char kControlNumber[] = "/sys/class/misc/device-mapper/dev";

std::string UuidOf(const DmName& name) {
  return "DORMOUSE-" + name.str();
}

// "10:236\n", as in sysfs.
Result<DeviceNumber> ParseDeviceNumber(const std::string& text) {
  DeviceNumber number;
  const char* end = text.data() + text.size();
  const auto major = std::from_chars(text.data(), end, number.major);
  if (major.ec == std::errc() && major.ptr != end && *major.ptr == ':' &&
      std::from_chars(major.ptr + 1, end, number.minor).ec == std::errc()) {
    return number;
  }
  return Fail(ErrorCode::kInvalid, "'" + text + "' is no device number");
}

Result<UniqueFd> OpenControl(const std::string& node_directory) {
  UniqueFd control(::open(kControlNode, O_RDWR | O_CLOEXEC));
  if (control) return control;
  auto number_text = ReadFile(kControlNumber, 64);
  if (!number_text)
    return Fail(ErrorCode::kUnsupported, "this kernel has no device-mapper (module dm_mod)");
  DORMOUSE_ASSIGN(const DeviceNumber number, ParseDeviceNumber(*number_text));
  const std::string node = node_directory + "/dm-control";
  DORMOUSE_TRY(MakeDeviceNode(node, NodeKind::kCharacter, number, 0));
  return OpenFile(node, O_RDWR);
}

class KernelDeviceMapper : public DeviceMapper {
 public:
  explicit KernelDeviceMapper(UniqueFd control) : control_(std::move(control)) {}

  Result<DeviceNumber> CreateSnapshot(const DmName& name, const SnapshotTable& table) override {
    return Create(name,
                  {{0, table.sectors, "snapshot",
                    table.origin.ToString() + " " + table.store.ToString() + " PO " +
                        std::to_string(table.chunk_sectors)}},
                  0);
  }

  Result<DeviceNumber> CreateLinearZero(const DmName& name, const LinearZeroTable& table) override {
    return Create(name,
                  {{0, table.base_sectors, "linear", table.base.ToString() + " 0"},
                   {table.base_sectors, table.sectors - table.base_sectors, "zero", ""}},
                  DM_READONLY_FLAG);
  }

  Result<> Remove(const DmName& name) override {
    DmRequest request(name.str(), "", 0);
    request.DisableUdevRules();
    auto removed = request.Issue(control_.get(), DM_DEV_REMOVE, "remove " + name.str());
    if (!removed && removed.error().errnum() == ENXIO) return {};
    return removed;
  }

  Result<> Suspend(const DmName& name) override {
    DmRequest request(name.str(), "", DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG);
    return Known(request.Issue(control_.get(), DM_DEV_SUSPEND, "suspend " + name.str()));
  }

  Result<> Resume(const DmName& name) override {
    DmRequest request(name.str(), "", 0);
    request.DisableUdevRules();
    return Known(request.Issue(control_.get(), DM_DEV_SUSPEND, "resume " + name.str()));
  }

  Result<DmDevice> Find(const DmName& name) override { return FindByName(name.str()); }

  Result<SnapshotStatus> Status(const DmName& name) override {
    DORMOUSE_ASSIGN(const auto targets, Table(name, 0));
    if (targets.size() != 1 || targets[0].type != "snapshot") {
      return Fail(ErrorCode::kInvalid, "status of " + name.str() + ": it is no snapshot");
    }
    auto status = ParseSnapshotStatus(targets[0].parameters);
    if (!status) return Fail(status.error().Wrap("status of " + name.str()));
    return status;
  }

  Result<std::vector<DmDevice>> List(std::string_view prefix) override {
    DmRequest request("", "", 0);
    DORMOUSE_TRY(request.Issue(control_.get(), DM_LIST_DEVICES, "list dm devices"));
    DORMOUSE_ASSIGN(const auto entries, request.List());
    std::vector<DmDevice> devices;
    for (const auto& entry : entries) {
      if (!entry.name.starts_with(prefix)) continue;
      auto device = FindByName(entry.name);
      if (device) {
        devices.push_back(*std::move(device));
      } else if (device.error().code() != ErrorCode::kNotFound) {  // gone since the list was made
        return Fail(device.error());
      }
    }
    std::sort(devices.begin(), devices.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return devices;
  }

  Result<> MakeNode(const DmName& name, const std::string& path, uid_t owner) override {
    DORMOUSE_ASSIGN(const auto device, Find(name));
    return MakeDeviceNode(path, NodeKind::kBlock, device.number, owner);
  }

 private:
  // dm answers ENXIO for a name that it does not know.
  static Result<> Known(Result<> result) {
    if (!result && result.error().errnum() == ENXIO)
      return Fail(result.error().WithCode(ErrorCode::kNotFound));
    return result;
  }

  Result<DmDevice> FindByName(const std::string& name) {
    DmRequest request(name, "", 0);
    DORMOUSE_TRY(Known(request.Issue(control_.get(), DM_DEV_STATUS, "find " + name)));
    const dm_ioctl& header = request.header();
    DmDevice device;
    device.name = name;
    device.number = DeviceNumber::FromDev(header.dev);
    device.open_count = static_cast<uint32_t>(header.open_count);
    device.suspended = (header.flags & DM_SUSPEND_FLAG) != 0;
    device.active = (header.flags & DM_ACTIVE_PRESENT_FLAG) != 0;
    return device;
  }

  Result<std::vector<DmTarget>> Table(const DmName& name, uint32_t flags) {
    DmRequest request(name.str(), "", flags);
    DORMOUSE_TRY(Known(request.Issue(control_.get(), DM_TABLE_STATUS, "table of " + name.str())));
    return request.Targets();
  }

  Result<DeviceNumber> Create(const DmName& name, const std::vector<DmTarget>& targets,
                              uint32_t flags) {
    bool is_new = true;
    DmRequest create(name.str(), UuidOf(name), 0);
    if (auto created = create.Issue(control_.get(), DM_DEV_CREATE, "create " + name.str());
        !created) {
      if (created.error().errnum() != EBUSY) return Fail(created.error());
      is_new = false;  // EBUSY: the name or the uuid, which are one, is taken
      DORMOUSE_ASSIGN(const auto device, Find(name));
      if (device.active) return Adopt(name, device, targets);
    }
    auto activated = LoadAndResume(name, targets, flags);
    if (!activated) {
      if (is_new) (void)Remove(name);  // the load's failure is what the caller must hear
      return Fail(activated.error());
    }
    DORMOUSE_ASSIGN(const auto device, Find(name));
    return device.number;
  }

  Result<DeviceNumber> Adopt(const DmName& name, const DmDevice& device,
                             const std::vector<DmTarget>& wanted) {
    DORMOUSE_ASSIGN(const auto found, Table(name, DM_STATUS_TABLE_FLAG));
    if (found != wanted) {
      return Fail(ErrorCode::kAlreadyExists,
                  "create " + name.str() + ": a device of that name has another table (" +
                      (found.empty() ? "none" : found[0].parameters) + ")");
    }
    if (device.suspended) DORMOUSE_TRY(Resume(name));
    return device.number;
  }

  Result<> LoadAndResume(const DmName& name, const std::vector<DmTarget>& targets, uint32_t flags) {
    DmRequest load(name.str(), "", flags);
    load.SetTargets(targets);
    DORMOUSE_TRY(
        load.Issue(control_.get(), DM_TABLE_LOAD, "create " + name.str() + ": table load"));
    return Resume(name);
  }

  const UniqueFd control_;
};

}  // namespace

Result<std::unique_ptr<DeviceMapper>> OpenDeviceMapper(const std::string& node_directory) {
  DORMOUSE_ASSIGN(UniqueFd control, OpenControl(node_directory));
  DmRequest version("", "", 0);
  DORMOUSE_TRY(version.Issue(control.get(), DM_VERSION, "device-mapper version"));
  return std::make_unique<KernelDeviceMapper>(std::move(control));
}

}  // namespace dormouse::host
