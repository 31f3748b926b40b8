#include "node-agent/disk/root_disk.h"

#include "node-agent/host/sparse_files.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/log.h"

namespace dormouse::disk {
namespace {

using host::DmName;
using host::SnapshotStatus;

DmName NameOf(const RootDiskSpec& spec) {
  return DmName::RootOf(spec.short_id);
}
uint64_t SectorsOf(const RootDiskSpec& spec) {
  return spec.disk_bytes / host::kSectorBytes;
}

// Runs one step between its two failpoints.
Result<> Step(const RootDiskSpec& spec, const std::string& name,
              const std::function<Result<>()>& work) {
  DORMOUSE_TRY(failpoint::Hit(name, spec.subject));
  DORMOUSE_TRY(work());
  return failpoint::Hit(name + ".done", spec.subject);
}

}  // namespace

std::string StoreLoopTag(const std::string& short_id) {
  return std::string(host::kLoopPrefix) + short_id + "-store";
}

RootDisks::RootDisks(host::DeviceMapper& dm, host::LoopDevices& loops, BaseDevices& bases)
    : dm_(dm), loops_(loops), bases_(bases) {}

Result<> RootDisks::EnsureBaseLoop(const RootDiskSpec& spec) {
  return Step(spec, "disk.base-loop", [&]() -> Result<> {
    DORMOUSE_TRY(bases_.EnsureLoop(spec.base));
    return {};
  });
}

Result<> RootDisks::EnsureOrigin(const RootDiskSpec& spec) {
  return Step(spec, "disk.origin", [&]() -> Result<> {
    DORMOUSE_TRY(bases_.EnsureOrigin(spec.base, spec.disk_bytes));
    return {};
  });
}

Result<> RootDisks::EnsureStoreFile(const RootDiskSpec& spec) {
  return Step(spec, "disk.store-file", [&] {
    return EnsureStore(spec.store_file, SectorsOf(spec), spec.allocation_window);
  });
}

Result<> RootDisks::EnsureStoreLoop(const RootDiskSpec& spec) {
  return Step(spec, "disk.store-loop", [&]() -> Result<> {
    const std::string tag = StoreLoopTag(spec.short_id);
    // A loop of this sandbox over another store (of the generation before) goes first.
    DORMOUSE_ASSIGN(const auto by_tag, loops_.FindByTag(tag));
    DORMOUSE_ASSIGN(const auto by_file, loops_.FindByFile(spec.store_file));
    if (by_tag && (!by_file || by_file->index != by_tag->index))
      DORMOUSE_TRY(loops_.Detach(*by_tag));
    DORMOUSE_TRY(loops_.Attach(spec.store_file, {tag, /*read_only=*/false, /*direct_io=*/true}));
    return {};
  });
}

Result<> RootDisks::EnsureSnapshot(const RootDiskSpec& spec) {
  return Step(spec, "disk.snapshot", [&]() -> Result<> {
    DORMOUSE_ASSIGN(const auto store, loops_.FindByTag(StoreLoopTag(spec.short_id)));
    if (!store)
      return Fail(ErrorCode::kNotFound, "create " + NameOf(spec).str() + ": its store has no loop");
    const auto create = [&](const Origin& origin) -> Result<> {
      DORMOUSE_TRY(dm_.CreateSnapshot(
          NameOf(spec), {origin.number, store->number, origin.sectors, kChunkSectors}));
      return {};
    };
    DORMOUSE_TRY(bases_.WithOrigin(spec.base, spec.disk_bytes, create));
    DORMOUSE_ASSIGN(const SnapshotStatus status, dm_.Status(NameOf(spec)));
    if (status.state == SnapshotStatus::State::kValid) return {};
    return Fail(ErrorCode::kCorrupt,
                NameOf(spec).str() + ": its store is invalid, the disk is lost");
  });
}

Result<host::DeviceNumber> RootDisks::Prepare(const RootDiskSpec& spec) {
  DORMOUSE_TRY(EnsureBaseLoop(spec));
  DORMOUSE_TRY(EnsureOrigin(spec));
  DORMOUSE_TRY(EnsureStoreFile(spec));
  DORMOUSE_TRY(EnsureStoreLoop(spec));
  DORMOUSE_TRY(EnsureSnapshot(spec));
  DORMOUSE_ASSIGN(const auto device, dm_.Find(NameOf(spec)));
  return device.number;
}

Result<> RootDisks::Release(const std::string& short_id) {
  DORMOUSE_TRY(dm_.Remove(DmName::RootOf(short_id)));
  DORMOUSE_ASSIGN(const auto loop, loops_.FindByTag(StoreLoopTag(short_id)));
  if (loop) DORMOUSE_TRY(loops_.Detach(*loop));
  return bases_.ReleaseUnused().map([](int) {});
}

Result<> RootDisks::ResumeAll() {
  DORMOUSE_ASSIGN(const auto devices, dm_.List());
  for (const host::DmDevice& device : devices) {
    const auto name = DmName::Parse(device.name);
    if (!device.suspended || !name) continue;
    const auto resumed = dm_.Resume(*name);
    log::Warning(
        "a disk was left suspended",
        {{"device", device.name}, {"now", resumed ? "resumed" : resumed.error().message()}});
  }
  return {};
}

Result<RootDiskUsage> RootDisks::Usage(const RootDiskSpec& spec) {
  RootDiskUsage usage;
  DORMOUSE_ASSIGN(usage.allocated_bytes, host::AllocatedBytes(spec.store_file));
  DORMOUSE_ASSIGN(const SnapshotStatus status, dm_.Status(NameOf(spec)));
  usage.valid = status.state == SnapshotStatus::State::kValid;
  usage.used_bytes = status.used_sectors * host::kSectorBytes;
  usage.capacity_bytes = status.total_sectors * host::kSectorBytes;
  if (status.total_sectors > 0) {
    usage.used_percent = static_cast<uint32_t>(status.used_sectors * 100 / status.total_sectors);
  }
  return usage;
}

Result<RootDiskUsage> RootDisks::KeepAhead(const RootDiskSpec& spec) {
  DORMOUSE_ASSIGN(RootDiskUsage usage, Usage(spec));
  if (!usage.valid) return usage;
  DORMOUSE_ASSIGN(const uint64_t reserved,
                  AllocateAhead(spec.store_file, usage.used_bytes, spec.allocation_window));
  usage.allocated_bytes += reserved;
  return usage;
}

}  // namespace dormouse::disk
