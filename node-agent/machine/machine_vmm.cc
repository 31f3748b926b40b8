// The VMM's and the guest's part of LinuxMachine.
#include <fcntl.h>
#include <signal.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>

#include "node-agent/guest/guest_client.h"
#include "node-agent/host/beneath.h"
#include "node-agent/host/mounts.h"
#include "node-agent/machine/inner_paths.h"
#include "node-agent/machine/machine_linux.h"
#include "node-agent/record/generation_files.h"
#include "node-agent/vmm/command_line.h"
#include "node-agent/vmm/exit_reason.h"
#include "node-agent/vmm/vm_config.h"
#include "src/common/api/reasons.h"
#include "src/common/base/files.h"
#include "src/common/base/hash.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

using namespace std::chrono_literals;

// Beside one for each vCPU. v53.0 has 12, the kernel's own for KVM included.
constexpr uint64_t kVmmThreads = 64;
// Processors for the VMM's own threads, beside one for each vCPU: what copies RAM, and virtio's
// workers.
constexpr uint64_t kVmmProcessors = 1;
constexpr uint64_t kWeightOfVcpu = 100;
constexpr uint64_t kLargestWeight = 10'000;
// What a VMM may keep in its directory: two states (restore/ and capture/) of some 100 KiB, its
// events and its log.
constexpr uint64_t kVmmFileBytes = uint64_t{32} << 20;
constexpr uint64_t kVmmFileNames = 256;
constexpr auto kKillLimit = 20s;  // memory teardown
constexpr auto kEndMoment = 1s;   // from a VMM's exit to its last thread's
constexpr auto kHealthTimeout = 2s;
// While it boots the VMM holds the connection until the guest listens: a worker waits no longer
// than this.
constexpr auto kBootProbe = 1s;
// v53.0 resets the connections of a VM that it restores, also those that are made just then: ask
// again soon.
constexpr auto kWakeProbe = 250ms;
constexpr auto kGuestTimeout = 10s;
constexpr auto kFreezeLimit = 5s;  // then the capture goes on, and says so
constexpr size_t kEntropyBytes = 64;

bool OomKilled(const std::string& cgroup) {
  const auto events = ReadFile(cgroup + "/memory.events", 4096);
  if (!events) return false;
  const auto at = events->find("oom_kill ");
  return at != std::string::npos && events->compare(at + 9, 2, "0\n") != 0;
}

std::string_view ReasonOf(vmm::ExitKind kind) {
  switch (kind) {
    case vmm::ExitKind::kGuestPoweroff:
      return api::reasons::kGuestPoweredOff;
    case vmm::ExitKind::kGuestReboot:
    case vmm::ExitKind::kGuestPanic:
      return api::reasons::kGuestRebooted;
    default:
      return api::reasons::kVmmCrashed;
  }
}

Ending EndingOf(const vmm::ExitReason& reason) {
  return {std::string(ReasonOf(reason.kind)), reason.message, reason.success, std::nullopt,
          std::chrono::system_clock::now()};
}

// What a guest cannot have by itself at its start, nor after a sleep; `request` has the two fields.
template <typename Request>
Result<> GiveTimeAndEntropy(Request* request) {
  request->wall_time_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                              std::chrono::system_clock::now().time_since_epoch())
                              .count();
  request->entropy.resize(kEntropyBytes);
  if (::getrandom(request->entropy.data(), kEntropyBytes, 0) !=
      static_cast<ssize_t>(kEntropyBytes)) {
    return FailErrno("getrandom");
  }
  return {};
}

std::string HostnameOf(const Record& record) {
  return record.name.substr(0, guest::kMaxHostname - 1);
}

// The same at each boot, and no other sandbox's.
std::string MachineIdOf(const Record& record) {
  return Sha256(record.uid.text()).substr(0, guest::kMachineIdDigits);
}

}  // namespace

Result<host::Process> LinuxMachine::VmmOf(const Record& record) const {
  if (!record.vmm) return Fail(ErrorCode::kNotFound, "no VMM");
  return host::Process::Open({record.vmm->pid, record.vmm->start_time_ticks, record.vmm->boot_id},
                             JailOf(record));
}

vmm::ApiClient LinuxMachine::Api(const Record& record) const {
  return vmm::ApiClient(
      {config_.paths.ApiSocket(record.uid.short_id(), record.incarnation), JailOf(record)});
}

Result<vmm::ApiClient> LinuxMachine::ReadyApi(const Record& record) const {
  vmm::ApiClient api = Api(record);
  DORMOUSE_ASSIGN(const host::Process process, VmmOf(record));
  // An emulated node takes seconds.
  DORMOUSE_ASSIGN(const auto ping, api.AwaitReady(20s, process.pidfd()));
  DORMOUSE_TRY(vmm::Admit(ping.version));
  return api;
}

Result<> LinuxMachine::PrepareVmm(const Record& record) {
  DORMOUSE_TRY(MakeVmDirectory(record));
  return MakeCgroup(record);
}

Result<> LinuxMachine::MakeVmDirectory(const Record& record) {
  const std::string directory = config_.paths.VmDirectory(record.uid.short_id());
  DORMOUSE_TRY(MakeDirectories(directory, 0700));
  if (host::IsMountPoint(directory)) return {};
  // In the host's mount namespace, where it outlives us and the launcher finds it.
  return host_.RunInMounts([&] {
    return host::MountBoundedFiles(directory, {UidOf(record), kVmmFileBytes, kVmmFileNames});
  });
}

Result<> LinuxMachine::MakeCgroup(const Record& record) {
  const auto guest_bytes = static_cast<uint64_t>(record.resources.memory_bytes);
  const auto vcpus = static_cast<uint64_t>(record.resources.vcpus);
  return cgroups_.Create(record.uid.short_id(),
                         {.memory_max_bytes = guest_bytes + config_.vmm_overhead_bytes,
                          .pids_max = vcpus + kVmmThreads,
                          .cpu_max = vcpus + kVmmProcessors,
                          .weight = std::min(vcpus * kWeightOfVcpu, kLargestWeight)});
}

Result<> LinuxMachine::Launch(Record* record) {
  const std::string short_id = record->uid.short_id();
  const std::string directory = config_.paths.VmDirectory(short_id);
  const uid_t uid = UidOf(*record);
  DORMOUSE_TRY(MakeVmDirectory(*record));
  // Sockets and logs of earlier incarnations are stale, and vsock.sock must not exist.
  DORMOUSE_TRY(EmptyDirectory(directory));
  DORMOUSE_ASSIGN(const host::Directory files, host::Directory::Open(directory));
  // The VMM would make it when it comes to it: too late for a watch that is set as soon as it runs.
  const std::string events = config_.paths.EventFile(short_id, record->incarnation);
  DORMOUSE_TRY(host::MakeBeneath(files, events.substr(directory.size() + 1), "", 0600, uid));
  if (::fchown(files.fd(), uid, uid) != 0) return FailErrno("chown " + directory);
  DORMOUSE_ASSIGN(const auto binary, artifacts_.Find(record->vmm_digest, "cloud-hypervisor"));
  DORMOUSE_ASSIGN(const auto kernel, artifacts_.Find(record->kernel_digest, "kernel"));
  DORMOUSE_ASSIGN(const auto initramfs, artifacts_.Find(record->initramfs_digest, "initramfs"));
  DORMOUSE_ASSIGN(const auto disk, dm_.Find(host::DmName::RootOf(short_id)));
  // One that an earlier VMM died in may be frozen, or kill whatever is born in it, and counts its
  // deaths. kBusy: that VMM is not gone yet.
  DORMOUSE_TRY(cgroups_.Remove(short_id));
  DORMOUSE_TRY(MakeCgroup(*record));
  DORMOUSE_ASSIGN(const UniqueFd cgroup, cgroups_.OpenDirectory(short_id));
  DORMOUSE_ASSIGN(const UniqueFd netns, nets_.Open(NetSpec({}, *record)));

  vmm::CommandSpec command;
  command.binary = kInnerBinary;
  command.api_socket = Inner(config_.paths.ApiSocket(short_id, record->incarnation));
  command.event_file = Inner(events);
  command.log_file = Inner(config_.paths.VmmLog(short_id, record->incarnation));

  host::LaunchSpec spec;
  spec.name = short_id;
  DORMOUSE_ASSIGN(spec.command, vmm::BuildCommandLine(command));
  spec.uid = spec.gid = UidOf(*record);
  // The drop belongs to the VMM only during a capture (CaptureState): otherwise it could fill the
  // node's disk.
  const std::string drop = config_.paths.Drop(record->uid);
  DORMOUSE_TRY(MakeDirectories(drop, 0700));
  // An agent that died in a capture has left it to the VMM before, which had the same user.
  DORMOUSE_TRY(TakeBack(drop));
  DORMOUSE_TRY(EmptyDirectory(drop));
  spec.binds = {{directory, kInnerDirectory, true},
                {drop, kInnerDrop, true},
                {binary.path, kInnerBinary, false, /*executable=*/true},
                {kernel.path, kInnerKernel},
                {initramfs.path, kInnerInitramfs}};
  if (record->sleeping) {
    const std::string memory =
        GenerationOf(config_.paths, *record, *record->sleeping) + "/" + kMemoryFile;
    spec.binds.push_back({memory, kInnerMemory});
  }
  spec.devices = {{kInnerDisk, disk.number, true}};
  // The largest file that a VMM has reason to write is its memory, in a snapshot of its own.
  spec.max_file_bytes = static_cast<uint64_t>(record->resources.memory_bytes);
  DORMOUSE_ASSIGN(spec.system_libraries, host::IsDynamicallyLinked(binary.path));
  spec.cgroup = cgroup.get();
  spec.netns = netns.get();
  DORMOUSE_ASSIGN(const auto launched,
                  host::Launch(host_, {config_.launcher, config_.paths.LaunchRoot()}, spec));
  record->vmm =
      ProcessHint{launched.identity.pid, launched.identity.start_time, launched.identity.boot_id};
  return {};
}

std::string LinuxMachine::GuestCmdline() const {
  std::string cmdline = vmm::DefaultCmdline();
  if (!config_.extra_cmdline.empty()) cmdline += " " + config_.extra_cmdline;
  return cmdline;
}

Result<> LinuxMachine::Create(const Record& record) {
  vmm::VmConfig config;
  config.vcpus = static_cast<uint32_t>(record.resources.vcpus);
  config.memory_bytes = static_cast<uint64_t>(record.resources.memory_bytes);
  config.payload = {kInnerKernel, kInnerInitramfs, GuestCmdline()};
  config.disk.path = kInnerDisk;
  config.vsock.socket = Inner(config_.paths.VsockSocket(record.uid.short_id()));
  config.serial_socket = Inner(config_.paths.SerialSocket(record.uid.short_id()));
  DORMOUSE_ASSIGN(const vmm::ApiClient api, ReadyApi(record));
  return api.Create(config);
}

Result<> LinuxMachine::Watch(const Record& record) {
  DORMOUSE_ASSIGN(const host::Process process, VmmOf(record));
  vmm::WatchSpec spec;
  spec.key = record.uid.text();
  spec.pidfd.Reset(::dup(process.pidfd()));
  spec.event_file = config_.paths.EventFile(record.uid.short_id(), record.incarnation);
  spec.vmm = UidOf(record);
  spec.serial_socket =
      host::VmmSocket{config_.paths.SerialSocket(record.uid.short_id()), JailOf(record)};
  spec.serial_log = config_.paths.Console(record.uid);
  return watch_->Add(std::move(spec));
}

void LinuxMachine::Unwatch(const Record& record) {
  watch_->Remove(record.uid.text());
}

Result<> LinuxMachine::AwaitWorkload(const Record& record) {
  return watch_->AwaitWorkload(record.uid.text(), VsockSocket(record));
}
void LinuxMachine::StopAwaiting(const Record& record) {
  watch_->StopAwaiting(record.uid.text());
}

std::string LinuxMachine::ConsoleTail(const Record& record, size_t lines) const {
  std::string tail = watch_->SerialTail(record.uid.text(), lines);
  return tail.empty() ? vmm::LastLinesOfLog(config_.paths.Console(record.uid), ::geteuid(), lines)
                      : tail;
}

Result<> LinuxMachine::Kill(const std::string& short_id) {
  DORMOUSE_TRY(cgroups_.Kill(short_id));
  DORMOUSE_TRY(cgroups_.WaitEmpty(short_id, kKillLimit));
  // Linux 6.18 at least ends whatever is born (CLONE_INTO_CGROUP) into a group that was killed
  // once.
  return cgroups_.Remove(short_id);
}

Result<> LinuxMachine::RemoveVmm(const std::string& short_id) {
  DORMOUSE_TRY(cgroups_.Remove(short_id));
  const std::string directory = config_.paths.VmDirectory(short_id);
  if (host::IsMountPoint(directory))
    DORMOUSE_TRY(host_.RunInMounts([&] { return host::DetachMount(directory); }));
  return RemoveTree(directory);
}

Result<> LinuxMachine::ObserveVmm(const Record& record, Observed* seen) {
  const std::string short_id = record.uid.short_id();
  seen->vmm_directory = PathExists(config_.paths.VmDirectory(short_id));
  seen->cgroup = cgroups_.Exists(short_id);
  const auto absent = [&] {
    seen->vmm = VmmState::kAbsent;
    if (record.vmm) seen->vmm_ending = ExplainEnd(record);
  };
  DORMOUSE_ASSIGN(const auto processes, cgroups_.Processes(short_id));
  if (processes.empty()) {
    absent();
    return {};
  }
  if (const auto vmm = VmmOf(record); !vmm) {
    // A foreign VMM is killed, so no passing trouble of ours may be taken for one.
    if (vmm.error().code() != ErrorCode::kNotFound && vmm.error().code() != ErrorCode::kPermission)
      return Fail(vmm.error());
    // It may be ending just now: then its group is empty in a moment.
    if (record.vmm && cgroups_.WaitEmpty(short_id, kEndMoment)) {
      absent();
    } else {
      seen->vmm = VmmState::kForeign;
    }
    return {};
  }
  if (cgroups_.IsFrozen(short_id)) {
    // By a capture, after it had been paused. It cannot answer.
    seen->vmm = VmmState::kPaused;
    return {};
  }
  const auto info = Api(record).Info();
  if (!info) {
    if (info.error().code() == ErrorCode::kPermission)
      log::Warning("a VMM's socket is another's",
                   {{"sandbox", record.key().ToString()}, {"error", info.error().message()}});
    // Whatever else it answers is no answer.
    seen->vmm =
        info.error().code() == ErrorCode::kNotFound ? VmmState::kStarting : VmmState::kSilent;
    return {};
  }
  switch (info->state) {
    case vmm::VmState::kRunning:
    case vmm::VmState::kBreakPoint:
      seen->vmm = VmmState::kRunning;
      break;
    case vmm::VmState::kPaused:
      seen->vmm = VmmState::kPaused;
      break;
    case vmm::VmState::kCreated:
    case vmm::VmState::kShutdown:
      seen->vmm = VmmState::kCreated;
      break;
  }
  if (seen->vmm == VmmState::kRunning) {
    ObserveGuest(record, seen);
  } else {
    seen->guest_ending = GuestEnding(record, seen->vmm);
  }
  return {};
}

std::string LinuxMachine::LogTail(const Record& record) const {
  return vmm::LastLinesOfLog(config_.paths.VmmLog(record.uid.short_id(), record.incarnation),
                             UidOf(record), 20);
}

std::optional<Ending> LinuxMachine::GuestEnding(const Record& record, VmmState vmm) const {
  const std::vector<vmm::Event> events = watch_->RecentEvents(record.uid.text());
  const auto ends = [](const vmm::Event& event) { return vmm::EndsTheVm(event.kind); };
  if (std::any_of(events.begin(), events.end(), ends)) {
    vmm::ExitObservation exit;
    exit.log_tail = LogTail(record);
    return EndingOf(vmm::ExplainExit(exit, events));
  }
  // It was ready once and holds a VM that does not run: the agent was away when it told, and only a
  // poweroff leaves that behind (v53.0 boots a rebooting guest in place).
  if (vmm == VmmState::kCreated && record.started_at) {
    return EndingOf({vmm::ExitKind::kGuestPoweroff, "the guest powered off", true});
  }
  return std::nullopt;
}

Ending LinuxMachine::ExplainEnd(const Record& record) const {
  std::vector<vmm::Event> events = watch_->RecentEvents(record.uid.text());
  if (events.empty()) {
    // It died while no agent watched: its file still tells.
    if (auto tail = vmm::EventTail::Open(
            config_.paths.EventFile(record.uid.short_id(), record.incarnation), UidOf(record))) {
      if (auto read = tail->Read()) events = std::move(*read);
    }
  }
  vmm::ExitObservation exit;
  exit.wait_status = watch_->ExitStatus(record.uid.text());
  exit.oom_killed = OomKilled(cgroups_.PathOf(record.uid.short_id()));
  exit.log_tail = LogTail(record);
  return EndingOf(vmm::ExplainExit(exit, events));
}

void LinuxMachine::ObserveGuest(const Record& record, Observed* seen) {
  seen->guest_ending = GuestEnding(record, seen->vmm);
  seen->workload_exit_code.reset();
  seen->workload_detail.clear();
  GuestClient client(VsockSocket(record));
  const auto health = client.Health(record.started_at ? kHealthTimeout
                                    : record.sleeping ? kWakeProbe
                                                      : kBootProbe);
  if (!health) {
    const ErrorCode code = health.error().code();
    // kPermission: somebody else answers in its place.
    const bool violation = code == ErrorCode::kCorrupt || code == ErrorCode::kPermission;
    seen->guest = violation ? GuestState::kViolation : GuestState::kSilent;
    return;
  }
  if (health->frozen) {
    seen->guest = GuestState::kFrozen;
    return;
  }
  if (!health->configured) {
    seen->guest = GuestState::kAnswering;
    return;
  }
  switch (health->workload.state) {
    case guest::WorkloadState::kNone:
      seen->guest = GuestState::kConfigured;
      break;
    case guest::WorkloadState::kRunning:
      seen->guest = GuestState::kWorking;
      break;
    case guest::WorkloadState::kExited:
      seen->guest = GuestState::kWorkloadEnded;
      seen->workload_exit_code = health->workload.exit.ShellCode();
      seen->workload_detail = health->workload.detail;
      break;
  }
}

Result<> LinuxMachine::ConfigureGuest(const api::SandboxSpec& spec, const Record& record) {
  guest::ConfigureRequest request;
  request.hostname = HostnameOf(record);
  request.machine_id = MachineIdOf(record);
  // A clone's disk was cleared of its source's keys before its hooks could make new ones.
  request.fresh_disk = !record.was_ready && (!record.origin || record.origin->boot_snapshot);
  request.dns = {spec.dns.nameservers, spec.dns.searches, spec.dns.options};
  request.resolvers = config_.net.resolvers;
  DORMOUSE_TRY(GiveTimeAndEntropy(&request));
  // What the workload runs with, a command that is run beside it has too: StartWorkload's message
  // holds its words alone, which may fill half of it.
  for (const api::EnvVar& variable : spec.workload.env)
    request.env.emplace_back(variable.name, variable.value);
  request.working_dir = spec.workload.working_dir;
  request.user = spec.workload.user;
  return GuestClient(VsockSocket(record)).Configure(request, kGuestTimeout);
}

Result<> LinuxMachine::StartWorkload(const api::SandboxSpec& spec, const Record& record) {
  guest::StartWorkloadRequest request;
  request.id = record.uid.text() + "-" + std::to_string(record.incarnation);
  request.process.argv = spec.workload.command;
  request.process.argv.insert(request.process.argv.end(), spec.workload.args.begin(),
                              spec.workload.args.end());
  return GuestClient(VsockSocket(record))
      .StartWorkload(request, kGuestTimeout)
      .map([](const auto&) {});
}

Result<> LinuxMachine::StopGuest(const api::SandboxSpec& spec, const Record& record) {
  const std::chrono::milliseconds grace = spec.termination_grace;
  return GuestClient(VsockSocket(record))
      .PowerOff({/*reboot=*/false, static_cast<uint32_t>(grace.count())}, kGuestTimeout);
}

Result<> LinuxMachine::FreezeGuest(const Record& record) {
  auto frozen = GuestClient(VsockSocket(record)).Freeze(kFreezeLimit);
  if (frozen) NoteFreeze(record, std::move(frozen->agent_version), frozen->frozen);
  if (frozen && frozen->frozen) return {};
  const std::string why = frozen ? frozen->detail : frozen.error().message();
  // Clones are to become others before any program of theirs goes on.
  if (record.capture_for)
    return Fail(ErrorCode::kUnavailable, "the guest does not stand still: " + why);
  // A guest that will not is put to sleep as it runs, like a machine whose lid is closed.
  log::Warning("a guest was not frozen for its suspend",
               {{"sandbox", record.key().ToString()}, {"detail", why}});
  return {};
}

Result<> LinuxMachine::ThawGuest(const Record& record) {
  guest::ThawRequest request;
  DORMOUSE_TRY(GiveTimeAndEntropy(&request));
  request.is_resume = record.sleeping.has_value();
  // A boot snapshot is nobody yet: it is told who it is as after a boot.
  if (record.IsCloning() && !record.origin->boot_snapshot) {
    request.new_identity = guest::Identity{HostnameOf(record), MachineIdOf(record)};
  }
  return GuestClient(VsockSocket(record)).Thaw(request, kGuestTimeout);
}

}  // namespace dormouse
