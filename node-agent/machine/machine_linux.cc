#include "node-agent/machine/machine_linux.h"

#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <set>

#include "node-agent/host/inventory.h"
#include "node-agent/host/netlink.h"
#include "node-agent/machine/inner_paths.h"
#include "node-agent/machine/vmm_drop.h"
#include "src/common/base/files.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr size_t kLargestNetDev = 4 << 20;  // of some 20,000 links
constexpr size_t kLargestCpuStat = 4096;

net::Egress EgressOf(api::Egress egress) {
  switch (egress) {
    case api::Egress::kOpen:
      return net::Egress::kOpen;
    case api::Egress::kNone:
      return net::Egress::kNone;
    case api::Egress::kRestricted:
      break;
  }
  return net::Egress::kRestricted;
}

// Without resolvers: the node's.
net::EgressPolicy PolicyOf(const api::SandboxSpec& spec) {
  return {EgressOf(spec.network.egress), spec.network.allow_cidrs, spec.network.deny_cidrs, {}};
}

}  // namespace

LinuxMachine::LinuxMachine(LinuxMachineConfig config, const host::HostNamespaces& host,
                           host::DeviceMapper& dm, host::LoopDevices& loops, host::Cgroups cgroups)
    : config_(std::move(config)),
      host_(host),
      dm_(dm),
      loops_(loops),
      cgroups_(std::move(cgroups)),
      images_(config_.images_directory, config_.paths.DigestCache()),
      bases_(dm, loops, config_.paths.Bases()),
      disks_(dm, loops, bases_),
      nets_(host, config_.net),
      artifacts_(config_.paths.Artifacts()),
      memory_check_(config_.paths) {}

Result<std::unique_ptr<LinuxMachine>> LinuxMachine::Open(LinuxMachineConfig config,
                                                         const host::HostNamespaces& host,
                                                         host::DeviceMapper& dm,
                                                         host::LoopDevices& loops,
                                                         Changed changed) {
  DORMOUSE_ASSIGN(auto cgroups, host::Cgroups::Open(config.cgroups));
  std::unique_ptr<LinuxMachine> machine(
      new LinuxMachine(std::move(config), host, dm, loops, std::move(cgroups)));
  DORMOUSE_TRY(machine->Prepare(std::move(changed)));
  return machine;
}

Result<> LinuxMachine::Prepare(Changed changed) {
  for (const std::string& directory : {config_.paths.state, config_.paths.run}) {
    DORMOUSE_TRY(MakeDirectories(directory, 0755));
  }
  for (const std::string& directory :
       {config_.images_directory, config_.paths.Bases(), config_.paths.Sandboxes(),
        config_.paths.NetworkNamespaces(), config_.paths.LaunchRoot()}) {
    DORMOUSE_TRY(MakeDirectories(directory, 0700));
  }
  // A VMM's uid must be able to walk to the directory that is its own.
  DORMOUSE_TRY(MakeDirectories(config_.paths.VmDirectories(), 0711));
  DORMOUSE_ASSIGN(const std::string output, vmm::ReadVersionOutput(config_.vmm_binary));
  DORMOUSE_ASSIGN(version_, vmm::ParseVersionOutput(output));
  DORMOUSE_TRY(vmm::Admit(version_));
  vmm_ = {"cloud-hypervisor", version_.Short()};
  DORMOUSE_ASSIGN(vmm_artifact_, artifacts_.Keep(config_.vmm_binary, "cloud-hypervisor"));
  DORMOUSE_ASSIGN(kernel_, artifacts_.Keep(config_.kernel, "kernel"));
  DORMOUSE_ASSIGN(initramfs_, artifacts_.Keep(config_.initramfs, "initramfs"));
  DORMOUSE_TRY(nets_.PrepareNode());
  // A veth's alias is its sandbox's UID.
  const auto link_changed = [changed](const std::string& veth) {
    auto node = host::RouteSocket::Open();
    const auto link = node ? node->FindLink(veth) : Fail(node.error());
    if (link && *link && !(*link)->alias.empty()) changed((*link)->alias);
  };
  DORMOUSE_TRY(nets_.node().Watch({link_changed, config_.network_repaired}));
  DORMOUSE_ASSIGN(
      watch_, vmm::Watch::Start([changed = std::move(changed)](const std::string& key,
                                                               const vmm::WatchNotice& notice) {
        if (notice.kind != vmm::WatchNotice::Kind::kEvent || vmm::EndsTheVm(notice.event.kind))
          changed(key);
      }));
  return {};
}

Result<Record> LinuxMachine::Resolve(const api::Sandbox& sandbox) {
  DORMOUSE_ASSIGN(const disk::Image image, images_.Resolve(sandbox.spec.image));
  const int64_t image_bytes = static_cast<int64_t>(image.size_bytes);
  int64_t disk_bytes = sandbox.spec.disk_bytes.value_or(image_bytes);
  disk_bytes = (disk_bytes + static_cast<int64_t>(kSectorBytes) - 1) /
               static_cast<int64_t>(kSectorBytes) * static_cast<int64_t>(kSectorBytes);
  if (disk_bytes < image_bytes) {
    return Fail(ErrorCode::kInvalid, "spec.disk.size of " + std::to_string(disk_bytes) +
                                         " bytes is smaller than image " + image.name + " (" +
                                         std::to_string(image_bytes) + " bytes)");
  }
  DORMOUSE_ASSIGN(const auto space, host::SpaceOf(config_.paths.state));
  if (!disk::Admits(space, config_.capacity, config_.allocation_window)) {
    return Fail(ErrorCode::kNoSpace, "the node keeps " +
                                         std::to_string(config_.capacity.reserve_bytes >> 20) +
                                         " MiB of disk in reserve and has " +
                                         std::to_string(space.available_bytes >> 20) + " MiB left");
  }
  Record record;
  record.image_name = image.name;
  record.image_digest = image.digest;
  record.image_bytes = image_bytes;
  record.disk_bytes = disk_bytes;
  record.resources = sandbox.EffectiveResources();
  record.vmm_digest = vmm_artifact_.sha256;
  record.kernel_digest = kernel_.sha256;
  record.initramfs_digest = initramfs_.sha256;
  return record;
}

disk::RootDiskSpec LinuxMachine::StoreSpec(const Record& record) const {
  disk::RootDiskSpec spec;
  spec.short_id = record.uid.short_id();
  spec.subject = record.key().ToString();
  spec.disk_bytes = static_cast<uint64_t>(record.disk_bytes);
  spec.store_file = config_.paths.Store(record.uid);
  spec.allocation_window = config_.allocation_window;
  return spec;
}

Result<disk::RootDiskSpec> LinuxMachine::DiskSpec(const Record& record) {
  disk::RootDiskSpec spec = StoreSpec(record);
  DORMOUSE_ASSIGN(spec.base, bases_.Find(record.image_digest));
  return spec;
}

Result<disk::RootDiskSpec> LinuxMachine::PinnedDiskSpec(const Record& record) {
  auto spec = DiskSpec(record);
  if (!spec && spec.error().code() == ErrorCode::kNotFound) {
    DORMOUSE_ASSIGN(const disk::Image image, images_.Resolve(record.image_name));
    if (image.digest != record.image_digest) {
      return Fail(ErrorCode::kCorrupt,
                  "image " + record.image_name + " is no longer what the sandbox was resolved to");
    }
    DORMOUSE_TRY(bases_.Pin(image));
    spec = DiskSpec(record);
  }
  return spec;
}

Result<> LinuxMachine::PrepareDisk(const Record& record) {
  DORMOUSE_ASSIGN(const auto spec, PinnedDiskSpec(record));
  return disks_.Prepare(spec).map([](host::DeviceNumber) {});
}

net::SandboxNetSpec LinuxMachine::NetSpec(const api::SandboxSpec& spec,
                                          const Record& record) const {
  net::SandboxNetSpec result;
  result.uid = record.uid.text();
  result.short_id = record.uid.short_id();
  result.subject = record.key().ToString();
  result.host_address = HostAddress(record);
  result.vmm_uid = UidOf(record);
  result.policy = PolicyOf(spec);
  return result;
}

std::string LinuxMachine::EgressRules(const api::SandboxSpec& spec) const {
  return nets_.RulesFor(PolicyOf(spec));
}

Result<> LinuxMachine::UpdateNetwork(const api::SandboxSpec& spec, const Record& record) {
  return nets_.UpdateRules(NetSpec(spec, record));
}

std::string LinuxMachine::HostAddress(const Record& record) const {
  return config_.net.range.AddressOf(record.slot);
}
host::VmmSocket LinuxMachine::VsockSocket(const Record& record) const {
  return {config_.paths.VsockSocket(record.uid.short_id()), JailOf(record)};
}

Result<> LinuxMachine::Do(Step step, const api::SandboxSpec& spec, Record* record) {
  const std::string short_id = record->uid.short_id();
  // A capture that failed is followed by a step that is none of a capture's.
  if (!IsCapture(step)) EndCapture(record->uid);
  switch (step) {
    case Step::kMakeStore:
      return disks_.EnsureStoreFile(StoreSpec(*record));
    case Step::kPrepareDisk:
      return PrepareDisk(*record);
    case Step::kPrepareNet:
      DORMOUSE_TRY(net::CheckPolicy(NetSpec(spec, *record).policy));
      return nets_.Prepare(NetSpec(spec, *record));
    case Step::kPrepareVmm:
      return PrepareVmm(*record);
    case Step::kLaunchVmm:
      return Launch(record);
    case Step::kCreateVm:
      return Create(*record);
    case Step::kBootVm:
      return Api(*record).Boot();
    case Step::kResumeVm:
      // What an agent that died in a capture has left.
      DORMOUSE_TRY(ResumeDisk(record->uid));
      DORMOUSE_TRY(TakeBack(config_.paths.Drop(record->uid)));
      DORMOUSE_TRY(cgroups_.Thaw(record->uid.short_id()));
      return Api(*record).Resume();
    case Step::kPauseVm:
      return Pause(*record);
    case Step::kConfigureGuest:
      return ConfigureGuest(spec, *record);
    case Step::kStartWorkload:
      return StartWorkload(spec, *record);
    case Step::kStopGuest:
      return StopGuest(spec, *record);
    case Step::kKillVmm:
      DORMOUSE_TRY(ResumeDisk(record->uid));
      return Kill(short_id);
    case Step::kReleaseDisk:
      return disks_.Release(short_id);
    case Step::kRemoveNet:
      return nets_.Remove(NetSpec(spec, *record));
    case Step::kRemoveVmm:
      return RemoveVmm(short_id);
    case Step::kRemoveFiles:
      DORMOUSE_TRY(RemoveTree(config_.paths.Verified(record->uid)));
      return RemoveFile(config_.paths.Store(record->uid));
    case Step::kPrepareCapture:
      return PrepareCapture(*record);
    case Step::kFreezeGuest:
      return FreezeGuest(*record);
    case Step::kCaptureState:
      return CaptureState(*record);
    case Step::kCaptureMemory:
      return CaptureMemory(*record);
    case Step::kCaptureDisk:
      return CaptureDisk(*record);
    case Step::kSyncCapture:
      return SyncCapture(record);
    case Step::kCopyGeneration:
      return CopyGeneration(record);
    case Step::kRestoreStore:
      return RestoreStore(*record);
    case Step::kRestoreVm:
      return Restore(*record);
    case Step::kThawGuest:
      return ThawGuest(*record);
    case Step::kTakeStore:
      return TakeStore(record);
    case Step::kPruneFiles:
      return PruneFiles(*record);
    default:
      return NobodyCarriesOut(step);
  }
}

Result<Observed> LinuxMachine::Observe(const Record& record) {
  Observed seen;
  DORMOUSE_TRY(ObserveDisk(record, &seen));
  DORMOUSE_ASSIGN(const auto net, nets_.Observe(NetSpec({}, record)));
  seen.net = net.Ready()  ? Presence::kComplete
             : net.Gone() ? Presence::kAbsent
                          : Presence::kPartial;
  seen.egress = net.rules;
  DORMOUSE_TRY(ObserveVmm(record, &seen));
  DORMOUSE_ASSIGN(const auto stale, StaleFiles(record));
  seen.stale_files = !stale.empty();
  return seen;
}

Result<> LinuxMachine::ObserveDisk(const Record& record, Observed* seen) {
  const auto name = host::DmName::RootOf(record.uid.short_id());
  auto device = dm_.Find(name);
  if (!device && device.error().code() != ErrorCode::kNotFound) return Fail(device.error());
  DORMOUSE_ASSIGN(const auto loop, loops_.FindByTag(disk::StoreLoopTag(record.uid.short_id())));
  if (!device || !device->active) {
    seen->disk = device || loop ? Presence::kPartial : Presence::kAbsent;
    return {};
  }
  DORMOUSE_ASSIGN(const auto status, dm_.Status(name));
  seen->disk = Presence::kComplete;
  seen->disk_lost = status.state != host::SnapshotStatus::State::kValid;
  return {};
}

std::map<api::SandboxUid, Activity> LinuxMachine::ReadActivity(const std::vector<Record>& records) {
  std::map<api::SandboxUid, Activity> activity;
  // Of the node's own namespace, in which the links' outer ends are.
  const auto links = ReadFile("/proc/1/net/dev", kLargestNetDev);
  if (!links) return activity;
  const auto packets = PacketsByLink(*links);
  for (const Record& record : records) {
    const std::string short_id = record.uid.short_id();
    const auto link = packets.find(net::VethName(short_id));
    const auto stat = ReadFile(cgroups_.PathOf(short_id) + "/cpu.stat", kLargestCpuStat);
    const auto cpu_time = stat ? CpuTimeIn(*stat) : std::nullopt;
    if (link != packets.end() && cpu_time) activity[record.uid] = {*cpu_time, link->second};
  }
  return activity;
}

Result<DiskUsage> LinuxMachine::KeepDiskAhead(const Record& record) {
  DORMOUSE_ASSIGN(const auto spec, DiskSpec(record));
  DORMOUSE_ASSIGN(const auto usage, disks_.KeepAhead(spec));
  if (!usage.valid)
    return Fail(ErrorCode::kCorrupt, "the store of " + spec.subject + " is invalid");
  return DiskUsage{static_cast<int64_t>(usage.used_bytes),
                   static_cast<int64_t>(usage.allocated_bytes),
                   static_cast<int>(usage.used_percent)};
}

Machine::NodeDisk LinuxMachine::CheckNodeDisk() {
  const auto space = host::SpaceOf(config_.paths.state);
  if (!space) return {DiskState::kFine, std::numeric_limits<int64_t>::max()};
  pressure_ = disk::PressureOf(*space, config_.capacity, pressure_);
  switch (pressure_) {
    case disk::DiskPressure::kNone:
      break;
    case disk::DiskPressure::kRefuseNew:
      return {DiskState::kRefuseNew, space->available_bytes};
    case disk::DiskPressure::kPauseGuests:
      return {DiskState::kFull, space->available_bytes};
  }
  return {DiskState::kFine, space->available_bytes};
}

std::optional<uint32_t> LinuxMachine::SlotInUse(const api::SandboxUid& uid) const {
  struct stat info {};
  if (::lstat(config_.paths.VmDirectory(uid.short_id()).c_str(), &info) != 0) return std::nullopt;
  if (info.st_uid <= config_.vmm_uid_base || info.st_uid - config_.vmm_uid_base >= SlotLimit())
    return std::nullopt;
  return info.st_uid - config_.vmm_uid_base;
}

Result<std::vector<OwnedObject>> LinuxMachine::ListOwned() {
  host::InventorySources sources;
  sources.dm = &dm_;
  sources.loops = &loops_;
  sources.host = &host_;
  sources.cgroups = &cgroups_;
  sources.netns_directory = config_.paths.NetworkNamespaces();
  sources.vm_directories = config_.paths.VmDirectories();
  DORMOUSE_ASSIGN(const auto items, host::ListAll(sources));
  std::vector<OwnedObject> owned;
  for (const host::InventoryItem& item : items)
    owned.push_back({{item.kind, item.name, item.detail}, item.short_id});
  DORMOUSE_ASSIGN(const auto directories, ListDirectory(config_.paths.VmDirectories()));
  for (const std::string& name : directories)
    owned.push_back({{"vmdir", config_.paths.VmDirectory(name), ""}, name});
  DORMOUSE_ASSIGN(const auto sandboxes, ListDirectory(config_.paths.Sandboxes()));
  for (const std::string& name : sandboxes) {
    if (const auto uid = api::SandboxUid::Parse(name)) {
      owned.push_back({{"files", config_.paths.Sandboxes() + "/" + name, ""}, uid->short_id()});
    }
  }
  return owned;
}

Result<> LinuxMachine::RemoveOwned(const std::string& short_id) {
  DORMOUSE_TRY(Kill(short_id));
  DORMOUSE_TRY(disks_.Release(short_id));
  net::SandboxNetSpec net;
  net.short_id = short_id;
  DORMOUSE_TRY(nets_.Remove(net));
  return RemoveVmm(short_id);
}

Result<> LinuxMachine::CollectBases(const std::vector<std::string>& used) {
  DORMOUSE_TRY(bases_.ReleaseUnused());
  DORMOUSE_ASSIGN(const auto bases, bases_.List());
  for (const disk::Base& base : bases) {
    if (std::find(used.begin(), used.end(), base.digest) != used.end()) continue;
    if (auto unpinned = bases_.Unpin(base.digest);
        !unpinned && unpinned.error().code() != ErrorCode::kBusy) {
      return unpinned;
    }
  }
  return {};
}

}  // namespace dormouse
