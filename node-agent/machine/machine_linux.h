// The machine that is the node: device-mapper, namespaces, cgroups, Cloud Hypervisor.
//
// Composes the rooms disk, net, vmm and guest; decides nothing. Thread-safe for different
// sandboxes. What it names and where: docs/structure.md, invariant 3, and paths.h.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "node-agent/disk/capacity.h"
#include "node-agent/disk/images.h"
#include "node-agent/disk/root_disk.h"
#include "node-agent/host/cgroup.h"
#include "node-agent/host/launch.h"
#include "node-agent/host/vmm_socket.h"
#include "node-agent/machine/machine.h"
#include "node-agent/machine/memory_check.h"
#include "node-agent/machine/vmm_drop.h"
#include "node-agent/net/sandbox_net.h"
#include "node-agent/record/paths.h"
#include "node-agent/vmm/api_client.h"
#include "node-agent/vmm/artifact_store.h"
#include "node-agent/vmm/version.h"
#include "node-agent/vmm/watch.h"

namespace dormouse {

struct LinuxMachineConfig {
  Paths paths;
  std::string images_directory;
  std::string vmm_binary;         ///< as found; copied by digest
  std::string kernel, initramfs;  ///< the guest's
  std::string extra_cmdline;      ///< appended to the guest kernel's command line
  std::string launcher;           ///< dormouse-launch
  std::string cpu_model;          ///< of this node, as a generation remembers it
  uint32_t vmm_uid_base =
      1'900'000'000;  ///< a VMM's uid is this plus its slot; above what containers get
  uint64_t vmm_overhead_bytes =
      96ULL << 20;  ///< of the VMM itself, beside the guest's memory, in memory.max
  uint64_t allocation_window = disk::kAllocationWindow;
  disk::CapacityPolicy capacity;
  net::NetConfig net{.netns_directory = {},
                     .range = *net::AddressRange::Parse(net::kDefaultRange),
                     .resolvers = {}};
  /// Something of the node's network was missing and is back; must not block.
  std::function<void(const std::string& what)> network_repaired = [](const std::string&) {};
  host::CgroupConfig cgroups;
};

class LinuxMachine : public Machine {
 public:
  /// Called with a sandbox's UID when its VMM has died or spoken, or its workload's end was
  /// awaited; must not block.
  using Changed = std::function<void(const std::string& uid)>;

  /// Keeps VMM, kernel and initramfs by digest, prepares the node's rules and directories.
  /// kUnsupported when the VMM's version is not admitted. The interfaces must outlive the machine.
  static Result<std::unique_ptr<LinuxMachine>> Open(LinuxMachineConfig config,
                                                    const host::HostNamespaces& host,
                                                    host::DeviceMapper& dm,
                                                    host::LoopDevices& loops, Changed changed);

  Result<Record> Resolve(const api::Sandbox& sandbox) override;
  Result<Observed> Observe(const Record& record) override;
  void ObserveGuest(const Record& record, Observed* seen) override;
  Result<> Do(Step step, const api::SandboxSpec& spec, Record* record) override;
  [[nodiscard]] std::string EgressRules(const api::SandboxSpec& spec) const override;
  Result<> UpdateNetwork(const api::SandboxSpec& spec, const Record& record) override;
  Result<DiskUsage> KeepDiskAhead(const Record& record) override;
  std::map<api::SandboxUid, Activity> ReadActivity(const std::vector<Record>& records) override;
  Result<> Watch(const Record& record) override;
  void Unwatch(const Record& record) override;
  Result<> AwaitWorkload(const Record& record) override;
  void StopAwaiting(const Record& record) override;
  [[nodiscard]] std::string HostAddress(const Record& record) const override;
  [[nodiscard]] host::VmmSocket VsockSocket(const Record& record) const override;
  [[nodiscard]] VmmIdentity Vmm() const override { return vmm_; }
  [[nodiscard]] std::string BootTraits() const override {
    return config_.cpu_model + "\n" + GuestCmdline();
  }
  Result<memory::Requirements> NeedsOfCapture(const Record& record) override;
  [[nodiscard]] memory::NodeOffer Offer() override;
  [[nodiscard]] std::string ConsoleTail(const Record& record, size_t lines) const override;
  [[nodiscard]] std::optional<uint32_t> SlotInUse(const api::SandboxUid& uid) const override;
  Result<> ResumeDisks() override { return disks_.ResumeAll(); }
  Result<std::vector<OwnedObject>> ListOwned() override;
  Result<> RemoveOwned(const std::string& short_id) override;
  Result<> CollectBases(const std::vector<std::string>& used) override;
  [[nodiscard]] uint32_t SlotLimit() const override { return config_.net.range.slots(); }
  [[nodiscard]] NodeDisk CheckNodeDisk() override;

  [[nodiscard]] disk::Images& images() { return images_; }
  [[nodiscard]] net::NodeNetState node_network() const { return nets_.node().state(); }
  [[nodiscard]] const vmm::VmmVersion& version() const { return version_; }

 private:
  LinuxMachine(LinuxMachineConfig config, const host::HostNamespaces& host, host::DeviceMapper& dm,
               host::LoopDevices& loops, host::Cgroups cgroups);
  Result<> Prepare(Changed changed);

  /// Without its base.
  [[nodiscard]] disk::RootDiskSpec StoreSpec(const Record& record) const;
  [[nodiscard]] Result<disk::RootDiskSpec> DiskSpec(const Record& record);
  /// The same, its base kept on this node.
  [[nodiscard]] Result<disk::RootDiskSpec> PinnedDiskSpec(const Record& record);
  [[nodiscard]] net::SandboxNetSpec NetSpec(const api::SandboxSpec& spec,
                                            const Record& record) const;
  /// Who alone may answer for it.
  [[nodiscard]] host::Jail JailOf(const Record& record) const {
    return {UidOf(record), cgroups_.MembershipOf(record.uid.short_id())};
  }
  /// The VMM that the record names. kNotFound: none, or it has exited.
  [[nodiscard]] Result<host::Process> VmmOf(const Record& record) const;
  [[nodiscard]] vmm::ApiClient Api(const Record& record) const;
  /// Api, once a VMM that was just launched answers there, in a version that is admitted.
  [[nodiscard]] Result<vmm::ApiClient> ReadyApi(const Record& record) const;
  /// Of the VMM that the record names; where it is not the node's, it must have been launched. The
  /// same for all of an incarnation, so that its RAM is a mapping of `memory_generation` exactly
  /// where Admit says kFull of it.
  [[nodiscard]] Result<vmm::VmmVersion> VersionOf(const Record& record) const;
  [[nodiscard]] uid_t UidOf(const Record& record) const {
    return config_.vmm_uid_base + record.slot;
  }

  Result<> PrepareDisk(const Record& record);
  Result<> PrepareVmm(const Record& record);
  Result<> Launch(Record* record);
  Result<> MakeCgroup(const Record& record);
  /// With a file system of its own. Nothing changes where that is there.
  Result<> MakeVmDirectory(const Record& record);
  [[nodiscard]] std::string GuestCmdline() const;
  Result<> Create(const Record& record);
  Result<> ConfigureGuest(const api::SandboxSpec& spec, const Record& record);
  Result<> FreezeGuest(const Record& record);
  Result<> ThawGuest(const Record& record);
  Result<> StartWorkload(const api::SandboxSpec& spec, const Record& record);
  Result<> StopGuest(const api::SandboxSpec& spec, const Record& record);
  /// Its processes, and their cgroup.
  Result<> Kill(const std::string& short_id);
  Result<> RemoveVmm(const std::string& short_id);

  // Sleep and wake: machine_snapshot.cc.
  struct Capture;
  Result<> PrepareCapture(const Record& record);
  void WriteAhead(const Record& record, const std::string& file);
  void NoteFreeze(const Record& record, std::string guest_version, bool frozen);
  Result<> Pause(const Record& record);
  /// Where a VMM that writes its memory itself does so.
  [[nodiscard]] Result<VmmDrop> MemoryDrop(const Record& record) const;
  [[nodiscard]] Result<> MakeRoomForState(const Record& record) const;
  Result<> CaptureState(const Record& record);
  Result<> CaptureMemory(const Record& record);
  Result<> ResumeDisk(const api::SandboxUid& uid);
  Result<> CaptureDisk(const Record& record);
  Result<> SyncCapture(Record* record);
  Result<> CopyGeneration(Record* record);
  /// Whether a generation is whole, and this node can run it; reads memory only at its first use
  /// since the node's boot.
  Result<> CheckGeneration(const Record& record, const std::string& generation);
  Result<> RestoreStore(const Record& record);
  Result<> TakeStore(Record* record);
  /// The generation's store, copied to be the one that the guest will write.
  Result<> CopyStore(const Record& record, const std::string& generation);
  Result<> Restore(const Record& record);
  Result<> PruneFiles(const Record& record);
  /// What of the sandbox's generations the record does not name, and of a capture; paths.
  Result<std::vector<std::string>> StaleFiles(const Record& record) const;
  [[nodiscard]] std::shared_ptr<Capture> CaptureOf(const Record& record);
  void EndCapture(const api::SandboxUid& uid);

  Result<> ObserveDisk(const Record& record, Observed* seen);
  Result<> ObserveVmm(const Record& record, Observed* seen);
  [[nodiscard]] Ending ExplainEnd(const Record& record) const;
  [[nodiscard]] std::optional<Ending> GuestEnding(const Record& record, VmmState vmm) const;
  [[nodiscard]] std::string LogTail(const Record& record) const;

  const LinuxMachineConfig config_;
  const host::HostNamespaces& host_;
  host::DeviceMapper& dm_;
  host::LoopDevices& loops_;
  host::Cgroups cgroups_;
  disk::Images images_;
  disk::BaseDevices bases_;
  disk::RootDisks disks_;
  net::SandboxNets nets_;
  vmm::ArtifactStore artifacts_;
  std::unique_ptr<vmm::Watch> watch_;
  vmm::Artifact vmm_artifact_, kernel_, initramfs_;
  vmm::VmmVersion version_;
  VmmIdentity vmm_;
  MemoryCheck memory_check_;
  disk::DiskPressure pressure_ = disk::DiskPressure::kNone;
  // What one capture learns step by step; lost with the agent, and the capture then begins anew.
  std::mutex captures_mutex_;
  std::map<api::SandboxUid, std::shared_ptr<Capture>> captures_;
};

}  // namespace dormouse
