// A machine made of booleans, for tests of the agent: what was prepared is there, and stays when
// the agent is thrown away. Thread-safe.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/machine/machine.h"
#include "node-agent/record/paths.h"
#include "src/common/base/files.h"

namespace dormouse {

class FakeMachine : public Machine {
 public:
  enum class Workload { kNone, kRunning, kExited };
  struct Generation {
    bool whole = false;
    bool frozen = false;  ///< as its manifest says it
    bool configured = true;
    Workload state = Workload::kNone;
    memory::Requirements needs;
  };
  struct Vm {
    bool disk = false, net = false, prepared = false, created = false, booted = false,
         paused = false;
    int pid = 0;  ///< 0 = no process
    bool configured = false, frozen = false;
    Workload workload = Workload::kNone;
    int exit_code = 0;
    std::string detail;           ///< why its program could not be run
    bool silent = false;          ///< the guest
    bool ignores_stop = false;    ///< asked to power off, it runs on
    bool vmm_silent = false;      ///< the VMM answers nothing; its guest may
    bool hangs_in_pause = false;  ///< at its next pause it becomes so
    std::string egress;           ///< the rules in force
    bool disk_suspended = false;  ///< then nothing that has it open ends, nor does a guest answer
    std::optional<Ending> ending;
    std::map<uint64_t, Generation> generations;
    /// The generation that its store is a copy of, until a guest runs on it; and what was booted.
    std::optional<uint64_t> store, booted_store;
    [[nodiscard]] bool Nothing() const { return !disk && !net && !prepared && pid == 0; }
  };

  Result<Record> Resolve(const api::Sandbox& sandbox) override {
    if (resolve_error) return Fail(*resolve_error);
    Record record;
    record.image_name = sandbox.spec.image;
    record.image_digest = "d";
    record.vmm_digest = "v";
    record.kernel_digest = "k";
    record.initramfs_digest = "i";
    record.disk_bytes = 1 << 20;
    record.resources = sandbox.EffectiveResources();
    return record;
  }

  Result<Observed> Observe(const Record& record) override {
    std::lock_guard lock(mutex);
    ++observations;
    const Vm& vm = vms[record.uid];
    Observed seen;
    seen.disk = vm.disk ? Presence::kComplete : Presence::kAbsent;
    seen.net = vm.net ? Presence::kComplete : Presence::kAbsent;
    seen.egress = vm.egress;
    seen.cgroup = seen.vmm_directory = vm.prepared;
    if (vm.pid == 0) {
      seen.vmm = VmmState::kAbsent;
      if (record.vmm)
        seen.vmm_ending =
            vm.ending.value_or(Ending{"VMMCrashed", "killed", false, std::nullopt, {}});
    } else if (!record.vmm || record.vmm->pid != vm.pid) {
      seen.vmm = VmmState::kForeign;
    } else {
      seen.vmm = vm.vmm_silent ? VmmState::kSilent
                 : vm.paused   ? VmmState::kPaused
                 : vm.booted   ? VmmState::kRunning
                 : vm.created  ? VmmState::kCreated
                               : VmmState::kStarting;
    }
    if (seen.vmm == VmmState::kRunning) GuestLocked(vm, &seen);
    for (const auto& [number, generation] : vm.generations) {
      seen.stale_files |= number != record.sleeping && number != record.memory_generation;
    }
    return seen;
  }
  void ObserveGuest(const Record& record, Observed* seen) override {
    std::lock_guard lock(mutex);
    GuestLocked(vms[record.uid], seen);
  }

  Result<> Do(Step step, const api::SandboxSpec& spec, Record* record) override {
    std::lock_guard lock(mutex);
    steps.push_back(std::string(StepName(step)));
    if (meanwhile) meanwhile(step);
    Vm& vm = vms[record->uid];
    if (awaited.contains(record->uid) && StandsStill(step))
      return Fail(ErrorCode::kInternal, "a guest that is asked something is stopped");
    switch (step) {
      case Step::kPrepareDisk:
        vm.disk = true;
        break;
      case Step::kPrepareNet:
        vm.net = true;
        vm.egress = EgressRules(spec);
        break;
      case Step::kPrepareVmm:
        vm.prepared = true;
        break;
      case Step::kLaunchVmm:
        if (!vm.disk || !vm.net || !vm.prepared || vm.pid != 0)
          return Fail(ErrorCode::kInternal, "launched out of order");
        vm.pid = ++last_pid;
        vm.created = vm.booted = vm.configured = vm.paused = vm.frozen = false;
        vm.vmm_silent = vm.hangs_in_pause = false;
        vm.workload = Workload::kNone;
        vm.ending.reset();
        record->vmm = ProcessHint{vm.pid, 1, "boot"};
        break;
      case Step::kCreateVm:
        vm.created = true;
        break;
      case Step::kBootVm:
        if (record->sleeping) return Fail(ErrorCode::kInternal, "booted beside its memory");
        vm.booted = true;
        vm.booted_store = std::exchange(vm.store, std::nullopt);
        break;
      case Step::kPauseVm:
        if (vm.hangs_in_pause) {
          vm.vmm_silent = true;
          return Fail(ErrorCode::kDeadline, "vm.pause: no answer");
        }
        vm.paused = true;
        break;
      case Step::kResumeVm:
        vm.paused = vm.disk_suspended = false;
        break;
      case Step::kConfigureGuest:
        if (configure_error) return Fail(*configure_error);
        vm.configured = true;
        break;
      case Step::kStartWorkload:
        if (start_error) return Fail(*start_error);
        vm.workload = Workload::kRunning;
        break;
      case Step::kStopGuest:
        if (vm.silent) return Fail(ErrorCode::kDeadline, "the guest does not answer");
        graces.push_back(spec.termination_grace);
        if (vm.ignores_stop) break;
        vm.pid = 0;
        vm.ending = Ending{"GuestPoweredOff", "the guest shut itself down", true, {}, {}};
        break;
      case Step::kKillVmm:
        vm.disk_suspended = false;
        vm.pid = 0;
        break;
      case Step::kReleaseDisk:
        if (vm.pid != 0) return Fail(ErrorCode::kBusy, "the VMM holds the disk");
        if (vm.disk_suspended) return Fail(ErrorCode::kDeadline, "the disk holds back its I/O");
        vm.disk = false;
        break;
      case Step::kRemoveNet:
        vm.net = false;
        vm.egress.clear();
        break;
      case Step::kRemoveVmm:
        vm.prepared = false;
        break;
      case Step::kPrepareCapture:
        // Any number that no record names may be there from a capture that was cut short.
        Captured(vm, *record) = Generation{};
        if (record->capture_for) return WriteTemplateFile(*record);
        break;
      case Step::kFreezeGuest:
        if (captured_as_it_ran && record->capture_for)
          return Fail(ErrorCode::kUnavailable, "the guest does not stand still");
        vm.frozen = Captured(vm, *record).frozen = !captured_as_it_ran;
        break;
      case Step::kCaptureState:
        if (!vm.paused) return Fail(ErrorCode::kInternal, "captured a running VM");
        Captured(vm, *record).state = vm.workload;
        Captured(vm, *record).configured = vm.configured;
        Captured(vm, *record).needs.vmm_version = "53.0";
        Captured(vm, *record).needs.cpu_model = cpu_model;
        Captured(vm, *record).needs.guest_version = "0.4.0";
        break;
      case Step::kSyncCapture:
        Captured(vm, *record).whole = true;
        (record->capture_for ? record->capture_for->figures : record->capture.emplace()) =
            CaptureFigures{1 << 20, 4096, 12, 8192};
        break;
      case Step::kCopyGeneration:
        if (!vm.Nothing()) return Fail(ErrorCode::kInternal, "copied while it runs");
        if (!Slept(vm, *record)->frozen)
          return Fail(ErrorCode::kUnsupported, std::string(kCapturedAsItRan));
        templates[record->capture_for->template_uid] = *Slept(vm, *record);
        record->capture_for->figures = CaptureFigures{1 << 20, 0, 0, 8192};
        return WriteTemplateFile(*record);
      case Step::kRestoreStore:
        if (vm.disk) return Fail(ErrorCode::kBusy, "the store is in use");
        if (Slept(vm, *record) == nullptr)
          return Fail(ErrorCode::kNotFound, "the generation is gone");
        if (check_error) return Fail(*check_error);
        vm.store = record->sleeping;
        break;
      case Step::kTakeStore:
        if (vm.disk || vm.pid != 0) return Fail(ErrorCode::kBusy, "the store is in use");
        if (Slept(vm, *record) == nullptr)
          return Fail(ErrorCode::kNotFound, "the generation is gone");
        if (take_error) return Fail(*take_error);
        vm.store = record->sleeping;
        break;
      case Step::kRestoreVm:
        if (!Slept(vm, *record)->whole) return Fail(ErrorCode::kCorrupt, "half a generation");
        if (vm.store != record->sleeping)
          return Fail(ErrorCode::kInternal, "an old memory over a newer disk");
        if (restore_error) return Fail(*restore_error);
        vm.store.reset();
        vm.created = vm.booted = true;
        vm.frozen = !captured_as_it_ran;
        vm.configured = Slept(vm, *record)->configured;
        vm.workload = Slept(vm, *record)->state;
        break;
      case Step::kThawGuest:
        if (thaw_error) return Fail(*thaw_error);
        vm.frozen = false;
        break;
      case Step::kPruneFiles:
        std::erase_if(vm.generations, [&](const auto& each) {
          return each.first != record->sleeping && each.first != record->memory_generation;
        });
        break;
      case Step::kRemoveFiles:
        vm.generations.clear();
        break;
      case Step::kMakeStore:
      case Step::kCaptureMemory:
      case Step::kCaptureDisk:
        break;
      default:
        return NobodyCarriesOut(step);
    }
    return {};
  }

  std::string EgressRules(const api::SandboxSpec& spec) const override {
    std::string rules = std::to_string(static_cast<int>(spec.network.egress));
    for (const auto& cidr : spec.network.allow_cidrs) rules += " +" + cidr;
    for (const auto& cidr : spec.network.deny_cidrs) rules += " -" + cidr;
    return rules;
  }
  Result<> UpdateNetwork(const api::SandboxSpec& spec, const Record& record) override {
    std::lock_guard lock(mutex);
    if (network_error) return Fail(*network_error);
    if (vms[record.uid].net) vms[record.uid].egress = EgressRules(spec);
    return {};
  }
  Result<DiskUsage> KeepDiskAhead(const Record& record) override {
    if (starved == record.uid) return Fail(ErrorCode::kNoSpace, "allocate store.cow: ENOSPC");
    const auto own = usages.find(record.uid);
    return own == usages.end() ? usage : own->second;
  }
  std::map<api::SandboxUid, Activity> ReadActivity(const std::vector<Record>& records) override {
    std::lock_guard lock(mutex);
    std::map<api::SandboxUid, Activity> read;
    for (const Record& record : records) {
      if (const auto found = activity.find(record.uid); found != activity.end())
        read.insert(*found);
    }
    return read;
  }
  Result<> Watch(const Record& record) override {
    std::lock_guard lock(mutex);
    return vms[record.uid].pid != 0 ? Result<>() : Fail(ErrorCode::kNotFound, "exited");
  }
  void Unwatch(const Record& record) override { StopAwaiting(record); }
  Result<> AwaitWorkload(const Record& record) override {
    std::lock_guard lock(mutex);
    if (refuses_to_wait) return Fail(ErrorCode::kUnsupported, "cannot wait");
    const Vm& vm = vms[record.uid];
    EXPECT_TRUE(vm.pid != 0 && !vm.paused && !vm.frozen);
    awaited.insert(record.uid);
    return {};
  }
  void StopAwaiting(const Record& record) override {
    std::lock_guard lock(mutex);
    awaited.erase(record.uid);
  }
  std::string HostAddress(const Record& record) const override {
    return "10.201.0." + std::to_string(record.slot);
  }
  host::VmmSocket VsockSocket(const Record&) const override { return {}; }
  std::string BootTraits() const override { return "traits"; }
  Result<memory::Requirements> NeedsOfCapture(const Record& record) override {
    // A template's commit asks it, and is no step of the machine's.
    if (meanwhile) meanwhile(Step::kCommitTemplate);
    return templates.at(record.capture_for->template_uid).needs;
  }
  memory::NodeOffer Offer() override {
    const auto has = [this](std::string_view digest) { return missing != digest; };
    return {cpu_model,
            [this](std::string_view version) -> std::optional<std::string> {
              if (missing != version) return std::nullopt;
              return "cloud-hypervisor " + missing + " is not supported";
            },
            has, has};
  }
  VmmIdentity Vmm() const override { return {"fake", "53.0"}; }
  std::string ConsoleTail(const Record&, size_t) const override { return "panic: no init"; }
  std::optional<uint32_t> SlotInUse(const api::SandboxUid&) const override { return 1; }
  Result<> ResumeDisks() override {
    std::lock_guard lock(mutex);
    for (auto& [uid, vm] : vms) vm.disk_suspended = false;
    return {};
  }
  Result<std::vector<OwnedObject>> ListOwned() override {
    std::lock_guard lock(mutex);
    std::vector<OwnedObject> owned;
    for (const auto& [uid, vm] : vms) {
      if (!vm.Nothing()) owned.push_back({{"vm", uid.text(), ""}, uid.short_id()});
    }
    return owned;
  }
  Result<> RemoveOwned(const std::string& short_id) override {
    std::lock_guard lock(mutex);
    for (auto& [uid, vm] : vms) {
      if (uid.short_id() != short_id) continue;
      if (vm.disk_suspended) return Fail(ErrorCode::kDeadline, "its VMM does not end");
      vm = Vm{};
    }
    return {};
  }
  Result<> CollectBases(const std::vector<std::string>&) override { return {}; }
  uint32_t SlotLimit() const override {
    if (on_slot_limit) on_slot_limit();
    return 4096;
  }
  NodeDisk CheckNodeDisk() override {
    return {disk_state, disk_state == DiskState::kFull ? disk_available : uint64_t{1} << 40};
  }

  /// What the death of the agent is to what it holds.
  void ForgetAgent() {
    std::lock_guard lock(mutex);
    awaited.clear();
  }

  /// Kills the process of a VM as the kernel would.
  void Crash(const api::SandboxUid& uid) {
    std::lock_guard lock(mutex);
    vms[uid].pid = 0;
  }

  Paths paths;  ///< where a template's capture leaves a file, as the real ones do
  std::mutex mutex;
  std::map<api::SandboxUid, Vm> vms;
  std::function<void()> on_slot_limit;  ///< asked for one that is new, before its record is saved
  std::map<api::SandboxUid, Generation> templates;
  std::string cpu_model = "cpu";
  std::string missing;  ///< of what generations need: a digest, or a VMM's version
  std::vector<std::string> steps;
  std::map<api::SandboxUid, Activity> activity;  ///< of those that can be read
  std::vector<std::chrono::seconds> graces;      ///< that guests were given to power off
  std::optional<Error> resolve_error, check_error, restore_error, thaw_error, take_error,
      network_error, configure_error, start_error;
  /// What else happens on the machine while it takes a step.
  std::function<void(Step)> meanwhile;
  DiskUsage usage;
  std::map<api::SandboxUid, DiskUsage> usages;  ///< where they differ
  std::optional<api::SandboxUid> starved;       ///< whose store cannot be allocated ahead
  DiskState disk_state = DiskState::kFine;
  uint64_t disk_available = 0;
  int last_pid = 100;
  int observations = 0;
  int guest_asked = 0;                ///< for its state
  std::set<api::SandboxUid> awaited;  ///< whose workload's end is waited for
  bool refuses_to_wait = false;       ///< guests of an old agent
  bool captured_as_it_ran = false;    ///< no guest can be frozen, and none that is restored was

 private:
  Result<> WriteTemplateFile(const Record& record) const {
    const std::string directory = paths.Template(record.capture_for->template_uid);
    DORMOUSE_TRY(MakeDirectories(directory));
    return WriteFileAtomically(directory + "/memory", "");
  }
  Generation& Captured(Vm& vm, const Record& record) {
    return record.capture_for ? templates[record.capture_for->template_uid]
                              : vm.generations[record.generations];
  }
  Generation* Slept(Vm& vm, const Record& record) {
    if (record.IsCloning()) {
      const auto found = templates.find(record.origin->template_uid);
      return found == templates.end() ? nullptr : &found->second;
    }
    const auto found = vm.generations.find(*record.sleeping);
    return found == vm.generations.end() ? nullptr : &found->second;
  }
  static bool StandsStill(Step step) {
    return step == Step::kPrepareCapture || step == Step::kFreezeGuest || step == Step::kPauseVm ||
           step == Step::kKillVmm;
  }
  void GuestLocked(const Vm& vm, Observed* seen) {
    ++guest_asked;
    if (vm.silent || vm.disk_suspended) {
      seen->guest = GuestState::kSilent;
    } else if (vm.frozen) {
      seen->guest = GuestState::kFrozen;
    } else if (!vm.configured) {
      seen->guest = GuestState::kAnswering;
    } else if (vm.workload == Workload::kRunning) {
      seen->guest = GuestState::kWorking;
    } else if (vm.workload == Workload::kExited) {
      seen->guest = GuestState::kWorkloadEnded;
      seen->workload_exit_code = vm.exit_code;
      seen->workload_detail = vm.detail;
    } else {
      seen->guest = GuestState::kConfigured;
    }
  }
};

}  // namespace dormouse
