// Sleep and wake: the steps of LinuxMachine that make a generation, and that bring one back.
// docs/snapshots.md says why in this order.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "node-agent/machine/disk_guard.h"
#include "node-agent/machine/inner_paths.h"
#include "node-agent/machine/machine_linux.h"
#include "node-agent/machine/vmm_drop.h"
#include "node-agent/memory/dump.h"
#include "node-agent/memory/manifest.h"
#include "node-agent/memory/verify.h"
#include "node-agent/record/generation_files.h"
#include "node-agent/vmm/snapshot_files.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/files.h"
#include "src/common/base/log.h"
#include "src/common/base/metrics.h"

namespace dormouse {
namespace {

// Its threads sleep already, unless it does not do what it is told.
constexpr std::chrono::seconds kFreezeVmmLimit{10};

std::string In(const std::string& directory, const char* file) {
  return directory + "/" + file;
}

constexpr off_t kLogBytesKept = 64 << 10;

// A new and empty directory of ours, in place of whatever has its name. The one above it is the
// VMM's.
Result<host::Directory> MakeAfresh(const std::string& path, mode_t mode) {
  DORMOUSE_TRY(RemoveTree(path));
  const auto slash = path.find_last_of('/');
  DORMOUSE_ASSIGN(const host::Directory above, host::Directory::Open(path.substr(0, slash)));
  return above.Make(path.substr(slash + 1), mode, ::geteuid());
}

// Of the VMM that runs: nothing where it was booted.
std::optional<std::string> MappedDirectory(const Paths& paths, const Record& record) {
  if (!record.memory_generation) return std::nullopt;
  return GenerationOf(paths, record, *record.memory_generation);
}
std::optional<std::string> MappedMemory(const Paths& paths, const Record& record) {
  const auto directory = MappedDirectory(paths, record);
  if (!directory) return std::nullopt;
  return In(*directory, kMemoryFile);
}

// What it sleeps with.
GenerationName SleepOf(const Paths& paths, const Record& record) {
  return {record.IsCloning() ? record.origin->template_uid : record.uid, *record.sleeping,
          GenerationOf(paths, record, *record.sleeping)};
}

// The parent goes when the new generation is committed, long before the digests of that one are
// computed from its own. Without them all of it is read.
void LinkParentDigests(const std::string& parent, const std::string& generation) {
  const std::string digests = In(parent, kDigestsFile);
  if (::link(digests.c_str(), In(generation, kParentDigestsFile).c_str()) != 0 && errno != ENOENT)
    log::Warning("digests are not carried forward", {{"file", digests}, {"errno", errno}});
}

memory::GenerationFiles FilesOf(const std::string& generation) {
  return {In(generation, kMemoryFile), In(generation, kConfigFile), In(generation, kStateFile),
          In(generation, kStoreFile)};
}

std::vector<memory::GuestRange> RangesOf(const vmm::StateSummary& summary) {
  std::vector<memory::GuestRange> ranges;
  for (const vmm::RamRange& range : summary.ranges) ranges.push_back({range.gpa, range.length});
  return ranges;
}

// The last of a generation: what it is, and all of it on disk, its name included.
Result<> Seal(const std::string& generation, memory::Manifest* manifest) {
  DORMOUSE_TRY(memory::SummarizeFiles(FilesOf(generation), manifest));
  DORMOUSE_TRY(
      WriteFileAtomically(In(generation, kManifestFile), memory::EncodeManifest(*manifest)));
  DORMOUSE_TRY(SyncDirectory(generation));
  return SyncDirectory(generation.substr(0, generation.find_last_of('/')));
}

}  // namespace

struct LinuxMachine::Capture {
  std::chrono::steady_clock::time_point paused_at{};
  vmm::VmmVersion version;
  vmm::Admission admission = vmm::Admission::kFull;
  bool stock = false;  ///< the VMM writes its memory itself
  std::vector<memory::GuestRange> ranges;
  std::optional<host::Process> process;  ///< whose memory it is, from when `ram` was found in it
  memory::RamMap ram;
  memory::DumpResult dump;
  uint64_t ahead_bytes = 0;  ///< of memory, written while the guest still ran
  bool store_reflinked = false;
  std::string guest_version;
  /// Unknown is false. What finds its VM paused does not ask its guest, who may have been frozen by
  /// an agent that died, or not at all: for a full disk a VM is only paused.
  bool frozen = false;
};

std::shared_ptr<LinuxMachine::Capture> LinuxMachine::CaptureOf(const Record& record) {
  const std::lock_guard lock(captures_mutex_);
  auto& capture = captures_[record.uid];
  if (!capture) capture = std::make_shared<Capture>();
  return capture;
}

void LinuxMachine::EndCapture(const api::SandboxUid& uid) {
  const std::lock_guard lock(captures_mutex_);
  captures_.erase(uid);
}

Result<vmm::VmmVersion> LinuxMachine::VersionOf(const Record& record) const {
  if (record.vmm_digest == vmm_artifact_.sha256) return version_;
  // A generation names its own, which may be of before an upgrade.
  DORMOUSE_ASSIGN(const vmm::ApiClient api, ReadyApi(record));
  return api.Ping().map([](const vmm::PingReply& ping) { return ping.version; });
}

Result<> LinuxMachine::PrepareCapture(const Record& record) {
  DORMOUSE_TRY(cgroups_.Thaw(record.uid.short_id()));
  auto capture = std::make_shared<Capture>();
  DORMOUSE_ASSIGN(capture->version, VersionOf(record));
  DORMOUSE_ASSIGN(capture->admission, vmm::Admit(capture->version));
  // Such a VMM has copied its memory when it was restored.
  const bool mapped = capture->admission == vmm::Admission::kFull;
  {
    const std::lock_guard lock(captures_mutex_);
    captures_[record.uid] = std::move(capture);
  }
  const std::string generation = CaptureDirectory(config_.paths, record);
  DORMOUSE_TRY(RemoveTree(generation));
  DORMOUSE_TRY(MakeDirectories(generation, 0700));
  const auto previous = mapped ? MappedMemory(config_.paths, record) : std::optional<std::string>();
  const auto bytes = static_cast<uint64_t>(record.resources.memory_bytes);
  const std::string file = In(generation, kMemoryFile);
  // Its own, consumed: nothing but this VM has a use for it. A template's is everybody's, and one
  // that is captured goes its own way from here.
  const bool own = previous && *record.memory_generation != 0 && !record.capture_for;
  if (own) return memory::ContinueMemoryFile(*previous, bytes, file);
  DORMOUSE_TRY(memory::MakeMemoryFile(previous, bytes, file));
  // Nobody waits for what a guest does that has been told nothing yet.
  const bool stands_still = record.capture_for && record.capture_for->boot_snapshot;
  if (mapped && !previous && !stands_still) WriteAhead(record, file);
  return {};
}

// All that a booted guest has ever touched is to be written, where later captures write what has
// changed. Most of it can be written while it runs.
void LinuxMachine::WriteAhead(const Record& record, const std::string& file) {
  const auto write = [&]() -> Result<uint64_t> {
    DORMOUSE_ASSIGN(const vmm::VmInfo info, Api(record).Info());
    if (info.state != vmm::VmState::kRunning)
      return Fail(ErrorCode::kUnsupported, "the guest stands still already");
    DORMOUSE_TRY(vmm::CheckPrivateMemory(info.config_json));
    DORMOUSE_ASSIGN(const std::string command_line, vmm::ReadCommandLine(info.config_json));
    const auto bytes = static_cast<uint64_t>(record.resources.memory_bytes);
    DORMOUSE_ASSIGN(const host::Process process, VmmOf(record));
    DORMOUSE_ASSIGN(const memory::RamMap ram, memory::FindRam(process, memory::BootRanges(bytes),
                                                              std::nullopt, command_line));
    return memory::DumpAhead(process, ram, file);
  };
  if (auto written = write()) {
    CaptureOf(record)->ahead_bytes = *written;
  } else {
    log::Info("memory is not written ahead of its capture",
              {{"sandbox", record.key().ToString()}, {"why", written.error().message()}});
  }
}

void LinuxMachine::NoteFreeze(const Record& record, std::string guest_version, bool frozen) {
  const auto capture = CaptureOf(record);
  capture->guest_version = std::move(guest_version);
  capture->frozen = frozen;
}

Result<> LinuxMachine::Pause(const Record& record) {
  CaptureOf(record)->paused_at = std::chrono::steady_clock::now();
  return Api(record).Pause();
}

Result<VmmDrop> LinuxMachine::MemoryDrop(const Record& record) const {
  DORMOUSE_ASSIGN(host::Directory drop, host::Directory::Open(config_.paths.Drop(record.uid)));
  return VmmDrop{std::move(drop), kInnerDrop, UidOf(record)};
}

// A guest can make its VMM log without end. All but the last of it goes, or a VMM that has filled
// its directory could write no state.
Result<> LinuxMachine::MakeRoomForState(const Record& record) const {
  const std::string log = config_.paths.VmmLog(record.uid.short_id(), record.incarnation);
  const auto file = host::OpenBeneath(log, O_RDWR, {UidOf(record), host::kAnySize});
  if (!file && file.error().code() == ErrorCode::kNotFound) return {};
  if (!file) return Fail(file.error());
  const off_t end = ::lseek(file->get(), 0, SEEK_END);
  if (end <= kLogBytesKept) return {};
  // The VMM writes on at its own offset, so the file must keep its length.
  if (::fallocate(file->get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  end - kLogBytesKept) != 0) {
    return FailErrno("cut " + log);
  }
  return {};
}

Result<> LinuxMachine::CaptureState(const Record& record) {
  const auto capture = CaptureOf(record);
  const auto snapshot = [&](const VmmDrop& drop, Handover handover) {
    return TakeSnapshot(Api(record), drop, handover, CaptureDirectory(config_.paths, record));
  };
  // A VMM may say that it has paused, and run on. From here on it cannot: memory and disk are of
  // one instant, whatever it does. It needs no thaw to be killed; to resume it, or another capture,
  // does.
  const auto freeze = [&] { return cgroups_.Freeze(record.uid.short_id(), kFreezeVmmLimit); };
  const auto fast = [&]() -> Result<> {
    if (capture->admission != vmm::Admission::kFull)
      return Fail(ErrorCode::kUnsupported, "it is not proven with " + capture->version.build);
    // In the VMM's own directory, whose size bounds what it can write.
    const std::string directory = config_.paths.VmmCapture(record.uid.short_id());
    DORMOUSE_TRY(MakeRoomForState(record));
    DORMOUSE_ASSIGN(host::Directory made, MakeAfresh(directory, 0700));
    const VmmDrop drop{std::move(made), Inner(directory), UidOf(record)};
    DORMOUSE_ASSIGN(const HandedOver handed, snapshot(drop, Handover::kStateOnly));
    DORMOUSE_TRY(freeze());
    DORMOUSE_TRY(RemoveTree(directory));
    DORMOUSE_TRY(vmm::CheckPrivateMemory(handed.config));
    capture->ranges = RangesOf(handed.summary);
    DORMOUSE_ASSIGN(capture->process, VmmOf(record));
    DORMOUSE_ASSIGN(capture->ram,
                    memory::FindRam(*capture->process, capture->ranges,
                                    MappedMemory(config_.paths, record), handed.command_line));
    return {};
  };
  auto done = fast();
  if (done || done.error().code() != ErrorCode::kUnsupported) return done;
  log::Warning("a capture takes the VMM's own snapshot",
               {{"sandbox", record.key().ToString()}, {"why", done.error().message()}});
  metrics::Registry::Default()
      .MakeCounter("dormouse_stock_snapshots_total",
                   "Captures whose memory the VMM wrote itself, dense, as the fast way did not "
                   "admit it.")
      .Increment();
  capture->stock = true;
  DORMOUSE_TRY(cgroups_.Thaw(record.uid.short_id()));
  // The drop is on the node's disk, and the VMM may be hostile. It has room for its memory, or is
  // not asked; one that takes so much more that the node's guests would have to stand still is
  // ended.
  const auto bytes = static_cast<uint64_t>(record.resources.memory_bytes);
  DORMOUSE_ASSIGN(const VmmDrop drop, MemoryDrop(record));
  DORMOUSE_ASSIGN(const auto space, host::SpaceOf(drop.directory.path()));
  const uint64_t floor = config_.capacity.pause_bytes;
  // Twice: where the file system has no reflinks, what is taken over is a copy.
  if (space.available_bytes < floor + 2 * bytes) {
    return Fail(ErrorCode::kNoSpace, "No space left for " + std::to_string(bytes >> 20) +
                                         " MiB of memory, which its VMM writes itself");
  }
  const DiskGuard guard(drop.directory.path(), floor, [this, &record] {
    const auto killed = cgroups_.Kill(record.uid.short_id());
    log::Error(
        "a VMM that wrote its memory was about to fill the node's disk, and was ended",
        {{"sandbox", record.key().ToString()}, {"error", killed ? "" : killed.error().message()}});
  });
  DORMOUSE_ASSIGN(const HandedOver handed, snapshot(drop, Handover::kWithMemory));
  capture->ranges = RangesOf(handed.summary);
  return freeze();
}

Result<> LinuxMachine::CaptureMemory(const Record& record) {
  const auto capture = CaptureOf(record);
  const std::string file = In(CaptureDirectory(config_.paths, record), kMemoryFile);
  if (!capture->stock) {
    if (!capture->process) return Fail(ErrorCode::kInternal, "no memory was looked for");
    DORMOUSE_ASSIGN(capture->dump, memory::DumpDiverged(*capture->process, capture->ram, file));
  } else {
    const uint64_t bytes = memory::TotalBytes(capture->ranges);
    DORMOUSE_ASSIGN(const VmmDrop drop, MemoryDrop(record));
    DORMOUSE_TRY(TakeMemory(drop, bytes, file));
    capture->dump = {bytes / memory::kPageBytes, bytes, bytes, 0, {{0, bytes}}};
  }
  // A VMM under its own uid maps it; nobody writes it again.
  if (::chmod(file.c_str(), 0444) != 0) return FailErrno("chmod " + file);
  return SyncFile(file);
}

// An agent that died while it copied the store has left the disk suspended: whatever touches it
// waits for ever, a sync of ours and the end of its VMM, too.
Result<> LinuxMachine::ResumeDisk(const api::SandboxUid& uid) {
  const auto name = host::DmName::RootOf(uid.short_id());
  const auto device = dm_.Find(name);
  if (!device)
    return device.error().code() == ErrorCode::kNotFound ? Result<>() : Fail(device.error());
  return device->suspended ? dm_.Resume(name) : Result<>();
}

Result<> LinuxMachine::CaptureDisk(const Record& record) {
  const auto name = host::DmName::RootOf(record.uid.short_id());
  const std::string store = config_.paths.Store(record.uid);
  const std::string copy = In(CaptureDirectory(config_.paths, record), kStoreFile);
  // The VMM writes through the page cache of the device: what is dirty there goes down first.
  const std::string node = config_.paths.DeviceNodes() + "/" + record.uid.short_id();
  DORMOUSE_TRY(ResumeDisk(record.uid));
  DORMOUSE_TRY(dm_.MakeNode(name, node, 0));
  const auto flushed = SyncFile(node);
  DORMOUSE_TRY(RemoveFile(node));
  DORMOUSE_TRY(flushed);
  DORMOUSE_TRY(dm_.Suspend(name));
  const auto clone = [&]() -> Result<> {
    DORMOUSE_TRY(failpoint::Hit("capture.disk.suspended", record.key().ToString()));
    DORMOUSE_TRY(SyncFile(store));
    DORMOUSE_TRY(RemoveFile(copy));
    DORMOUSE_ASSIGN(CaptureOf(record)->store_reflinked, host::CloneFile(store, copy));
    return SyncFile(copy);
  };
  const auto cloned = clone();
  DORMOUSE_TRY(dm_.Resume(name));
  return cloned;
}

Result<> LinuxMachine::SyncCapture(Record* record) {
  const auto capture = CaptureOf(*record);
  const std::string generation = CaptureDirectory(config_.paths, *record);
  memory::Manifest manifest;
  if (record->capture_for) {
    manifest.owner = record->capture_for->template_uid.text();
  } else {
    manifest.owner = record->uid.text();
    manifest.generation = record->generations;
    if (!capture->stock) manifest.parent = record->memory_generation;
  }
  manifest.captured_at = std::chrono::system_clock::now();
  manifest.ranges = capture->ranges;
  manifest.changed_chunks = memory::ChunksOf(capture->dump.changed);
  manifest.written_bytes = capture->ahead_bytes + capture->dump.written_bytes;
  manifest.store_reflinked = capture->store_reflinked;
  manifest.vmm_digest = record->vmm_digest;
  manifest.kernel_digest = record->kernel_digest;
  manifest.initramfs_digest = record->initramfs_digest;
  manifest.image_digest = record->image_digest;
  manifest.vmm_version = capture->version.Short();
  manifest.cpu_model = config_.cpu_model;
  manifest.guest_version = capture->guest_version;
  manifest.vcpus = static_cast<uint32_t>(record->resources.vcpus);
  manifest.disk_bytes = static_cast<uint64_t>(record->disk_bytes);
  manifest.frozen = capture->frozen;
  if (manifest.parent) LinkParentDigests(*MappedDirectory(config_.paths, *record), generation);
  DORMOUSE_TRY(Seal(generation, &manifest));
  const GenerationName name{*api::SandboxUid::Parse(manifest.owner), manifest.generation,
                            generation};
  MarkVerified(config_.paths, name, IdentityOf(generation, Holes::kLeave));
  const auto stood = std::chrono::steady_clock::now() - capture->paused_at;
  const CaptureFigures figures{
      static_cast<int64_t>(manifest.memory.allocated_bytes),
      static_cast<int64_t>(manifest.written_bytes),
      capture->paused_at.time_since_epoch().count() == 0
          ? 0
          : std::chrono::duration_cast<std::chrono::milliseconds>(stood).count(),
      static_cast<int64_t>(manifest.store.allocated_bytes)};
  if (record->capture_for) {
    record->capture_for->figures = figures;
  } else {
    record->capture = figures;
  }
  EndCapture(record->uid);
  return {};
}

Result<> LinuxMachine::CopyGeneration(Record* record) {
  const std::string from = GenerationOf(config_.paths, *record, *record->sleeping);
  const std::string to = CaptureDirectory(config_.paths, *record);
  DORMOUSE_ASSIGN(auto manifest, ReadManifest(from));
  if (!manifest.frozen) return Fail(ErrorCode::kUnsupported, std::string(kCapturedAsItRan));
  const GenerationName source = SleepOf(config_.paths, *record);
  // Once copied, what is wrong with it would be the template's own.
  DORMOUSE_TRY(memory_check_.BeforeUse(source, manifest));
  auto digests = ReadDigests(from, manifest);
  const bool verified = IsVerified(config_.paths, source);
  DORMOUSE_TRY(RemoveTree(to));
  DORMOUSE_TRY(MakeDirectories(to, 0700));
  for (const char* file : {kMemoryFile, kStoreFile, kConfigFile, kStateFile}) {
    DORMOUSE_TRY(host::CloneFile(In(from, file), In(to, file)));
    DORMOUSE_TRY(SyncFile(In(to, file)));
  }
  if (::chmod(In(to, kMemoryFile).c_str(), 0444) != 0) return FailErrno("chmod in " + to);
  manifest.owner = record->capture_for->template_uid.text();
  manifest.generation = 0;
  manifest.parent.reset();
  manifest.written_bytes = 0;
  if (digests) {
    digests->generation = manifest.generation;
    DORMOUSE_TRY(WriteFileAtomically(In(to, kDigestsFile), memory::EncodeDigests(*digests)));
  }
  DORMOUSE_TRY(Seal(to, &manifest));
  if (verified) {
    MarkVerified(config_.paths, {record->capture_for->template_uid, 0, to},
                 IdentityOf(to, Holes::kCount));
  }
  record->capture_for->figures = {static_cast<int64_t>(manifest.memory.allocated_bytes), 0, 0,
                                  static_cast<int64_t>(manifest.store.allocated_bytes)};
  return {};
}

Result<> LinuxMachine::RestoreStore(const Record& record) {
  const std::string generation = GenerationOf(config_.paths, record, *record.sleeping);
  DORMOUSE_TRY(CheckGeneration(record, generation));
  return CopyStore(record, generation);
}

Result<> LinuxMachine::TakeStore(Record* record) {
  const std::string generation = GenerationOf(config_.paths, *record, *record->sleeping);
  // What a boot needs beside the store is looked for while there is a memory to go back to.
  DORMOUSE_TRY(PinnedDiskSpec(*record));
  if (const auto manifest = ReadManifest(generation)) {
    DORMOUSE_ASSIGN(const uint64_t bytes, host::SizeBytes(In(generation, kStoreFile)));
    if (bytes != manifest->store.bytes) {
      return Fail(ErrorCode::kCorrupt, In(generation, kStoreFile) + " has " +
                                           std::to_string(bytes) + " bytes, and had " +
                                           std::to_string(manifest->store.bytes));
    }
  } else {
    // The disk is all that is left to hope for.
    log::Warning("a store is taken that no manifest speaks for",
                 {{"sandbox", record->key().ToString()}, {"error", manifest.error().message()}});
  }
  DORMOUSE_TRY(CopyStore(*record, generation));
  // Only its memory was bound to what it was captured on, which may be gone.
  record->vmm_digest = vmm_artifact_.sha256;
  record->kernel_digest = kernel_.sha256;
  record->initramfs_digest = initramfs_.sha256;
  return {};
}

Result<> LinuxMachine::CopyStore(const Record& record, const std::string& generation) {
  const std::string store = config_.paths.Store(record.uid);
  const std::string fresh = store + ".new";
  DORMOUSE_TRY(RemoveFile(fresh));
  DORMOUSE_TRY(host::CloneFile(In(generation, kStoreFile), fresh));
  DORMOUSE_TRY(SyncFile(fresh));
  if (::rename(fresh.c_str(), store.c_str()) != 0) return FailErrno("rename " + fresh);
  return SyncDirectory(config_.paths.Sandbox(record.uid));
}

Result<memory::Requirements> LinuxMachine::NeedsOfCapture(const Record& record) {
  return ReadManifest(CaptureDirectory(config_.paths, record))
      .map([](const memory::Manifest& manifest) -> memory::Requirements { return manifest; });
}

memory::NodeOffer LinuxMachine::Offer() {
  return {config_.cpu_model,
          [](std::string_view version) -> std::optional<std::string> {
            const auto parsed = vmm::VersionFromPing(version, version);
            if (!parsed) return parsed.error().message();
            const auto admitted = vmm::Admit(*parsed);
            if (!admitted) return admitted.error().message();
            return std::nullopt;
          },
          [this](std::string_view digest) {
            return artifacts_.Find(digest, "cloud-hypervisor") ||
                   artifacts_.Find(digest, "kernel") || artifacts_.Find(digest, "initramfs");
          },
          [this](std::string_view digest) { return bases_.Find(std::string(digest)).has_value(); }};
}

Result<> LinuxMachine::CheckGeneration(const Record& record, const std::string& generation) {
  DORMOUSE_ASSIGN(const auto manifest, ReadManifest(generation));
  if (const auto why = memory::Incompatibility(manifest, Offer()))
    return Fail(ErrorCode::kUnsupported, *why);
  DORMOUSE_ASSIGN(const auto doubt, memory::VerifyFiles(FilesOf(generation), manifest));
  if (doubt)
    log::Warning("a generation is in doubt",
                 {{"sandbox", record.key().ToString()}, {"detail", *doubt}});
  return memory_check_.BeforeUse(SleepOf(config_.paths, record), manifest);
}

Result<> LinuxMachine::Restore(const Record& record) {
  const std::string generation = GenerationOf(config_.paths, record, *record.sleeping);
  DORMOUSE_ASSIGN(const auto config, ReadFile(In(generation, kConfigFile), vmm::kMaxConfigBytes));
  DORMOUSE_ASSIGN(const auto state, ReadFile(In(generation, kStateFile), vmm::kMaxStateBytes));
  DORMOUSE_ASSIGN(const auto version, VersionOf(record));
  DORMOUSE_ASSIGN(const auto admission, vmm::Admit(version));
  const bool mapped = admission == vmm::Admission::kFull;
  vmm::RestoreEdits edits;
  edits.memory = mapped ? vmm::RestoreMemory::kCopyOnWrite : vmm::RestoreMemory::kCopy;
  edits.memory_file = kInnerMemory;
  edits.disk = kInnerDisk;
  edits.vsock_socket = Inner(config_.paths.VsockSocket(record.uid.short_id()));
  edits.serial_socket = Inner(config_.paths.SerialSocket(record.uid.short_id()));
  edits.kernel = kInnerKernel;
  edits.initramfs = kInnerInitramfs;
  DORMOUSE_ASSIGN(const auto texts, vmm::PrepareRestore(config, state, edits));

  // Sockets of a restore that failed are in its successor's way.
  DORMOUSE_TRY(RemoveFile(config_.paths.VsockSocket(record.uid.short_id())));
  DORMOUSE_TRY(RemoveFile(config_.paths.SerialSocket(record.uid.short_id())));
  const std::string path = config_.paths.RestoreDirectory(record.uid.short_id());
  DORMOUSE_ASSIGN(const host::Directory directory, MakeAfresh(path, 0755));
  const auto give = [&](const char* name, const std::string& content) {
    return host::MakeBeneath(directory, name, content, 0444, ::geteuid());
  };
  DORMOUSE_TRY(give(kConfigFile, texts.config_json));
  DORMOUSE_TRY(give(kStateFile, texts.state_json));
  if (!mapped) {
    log::Warning("a wake reads all of its memory",
                 {{"sandbox", record.key().ToString()}, {"vmm", version.build}});
    // Its contents are of the layout that the VMM writes; the link is followed in the VMM's root.
    if (::symlinkat(kInnerMemory, directory.fd(), kStockMemoryFile) != 0)
      return FailErrno("link the memory into " + path);
  }
  DORMOUSE_ASSIGN(const vmm::ApiClient api, ReadyApi(record));
  return api.Restore({Inner(path), true});
}

Result<std::vector<std::string>> LinuxMachine::StaleFiles(const Record& record) const {
  const std::string directory = config_.paths.Sandbox(record.uid);
  std::vector<std::string> stale;
  DORMOUSE_ASSIGN(const auto names, ListDirectory(directory));
  for (const std::string& name : names) {
    if (!name.starts_with(Paths::kGenerationPrefix)) continue;
    const std::string path = directory + "/" + name;
    const auto is = [&](const std::optional<uint64_t>& number) {
      return number && path == config_.paths.Generation(record.uid, *number);
    };
    if (is(record.sleeping)) continue;
    if (!is(record.memory_generation)) {
      stale.push_back(path);
      continue;
    }
    // Consumed: an older memory is never resumed over a newer disk (invariant 11).
    for (const char* file : {kStateFile, kConfigFile, kStoreFile}) {
      if (PathExists(In(path, file))) stale.push_back(In(path, file));
    }
  }
  const std::string marks = config_.paths.Verified(record.uid);
  DORMOUSE_ASSIGN(const auto verified, ListDirectory(marks));
  for (const std::string& number : verified) {
    const std::string mark = marks + "/" + number;
    if (!record.sleeping || mark != config_.paths.Verified(record.uid, *record.sleeping))
      stale.push_back(mark);
  }
  // Of a capture that was cut short between the VMM's writing and our taking.
  if (const std::string left = LeftMemory(config_.paths.Drop(record.uid)); !left.empty())
    stale.push_back(left);
  // Its generation has it.
  if (record.intent == Intent::kSuspended && record.sleeping &&
      PathExists(config_.paths.Store(record.uid))) {
    stale.push_back(config_.paths.Store(record.uid));
  }
  return stale;
}

Result<> LinuxMachine::PruneFiles(const Record& record) {
  DORMOUSE_ASSIGN(const auto stale, StaleFiles(record));
  for (const std::string& path : stale) {
    // Digests that are just being written may come between: once.
    if (!RemoveTree(path)) DORMOUSE_TRY(RemoveTree(path));
  }
  return {};
}

}  // namespace dormouse
