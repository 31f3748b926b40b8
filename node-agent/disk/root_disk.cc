#include "node-agent/disk/root_disk.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <vector>

#include "node-agent/host/sparse_files.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/files.h"
#include "src/common/base/log.h"

namespace dormouse::disk {
namespace {

using host::DmName;
using host::SnapshotStatus;

constexpr size_t kFlattenBlock = 1 << 20;
constexpr uint64_t kHoleBytes = 4096;

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

// Nothing in place of kNotFound.
template <typename T>
Result<std::optional<T>> IfThere(Result<T> result) {
  if (result) return std::optional<T>(*std::move(result));
  if (result.error().code() == ErrorCode::kNotFound) return std::nullopt;
  return Fail(result.error());
}

// Copies `length` bytes at `offset`, leaving out blocks of zeros.
Result<> CopyBlocks(int to, const std::vector<char>& block, uint64_t offset, size_t length) {
  for (size_t at = 0; at < length; at += kHoleBytes) {
    const size_t piece = std::min<size_t>(kHoleBytes, length - at);
    const char* begin = block.data() + at;
    if (std::all_of(begin, begin + piece, [](char c) { return c == 0; })) continue;
    if (::pwrite(to, begin, piece, static_cast<off_t>(offset + at)) !=
        static_cast<ssize_t>(piece)) {
      return FailErrno("write");
    }
  }
  return {};
}

Result<> CopyDevice(int from, int to, uint64_t bytes) {
  if (::ftruncate(to, static_cast<off_t>(bytes)) != 0) return FailErrno("size");
  std::vector<char> block(kFlattenBlock);
  for (uint64_t offset = 0; offset < bytes;) {
    const size_t want = static_cast<size_t>(std::min<uint64_t>(block.size(), bytes - offset));
    const ssize_t got = ::pread(from, block.data(), want, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno("read");
    if (got == 0) return Fail(ErrorCode::kCorrupt, "the device ends at " + std::to_string(offset));
    DORMOUSE_TRY(CopyBlocks(to, block, offset, static_cast<size_t>(got)));
    offset += static_cast<uint64_t>(got);
  }
  if (::fsync(to) != 0) return FailErrno("fsync");
  return {};
}

}  // namespace

std::string StoreLoopTag(const std::string& short_id) {
  return std::string(host::kLoopPrefix) + short_id + "-store";
}

bool RootDiskState::Ready() const {
  return base_loop && origin && store_file && store_loop && snapshot && snapshot->active &&
         !snapshot->suspended && status && status->state == SnapshotStatus::State::kValid && node;
}

bool RootDiskState::Gone() const {
  return !store_file && !store_loop && !snapshot && !node;
}

RootDisks::RootDisks(host::DeviceMapper& dm, host::LoopDevices& loops, BaseDevices& bases)
    : dm_(dm), loops_(loops), bases_(bases) {}

Result<RootDiskState> RootDisks::Observe(const RootDiskSpec& spec) {
  RootDiskState state;
  DORMOUSE_ASSIGN(state.base_loop, bases_.FindLoop(spec.base));
  DORMOUSE_ASSIGN(state.origin, bases_.FindOrigin(spec.base, spec.disk_bytes));
  DORMOUSE_ASSIGN(state.store_loop, loops_.FindByTag(StoreLoopTag(spec.short_id)));
  state.store_file = PathExists(spec.store_file);
  if (state.store_file) {
    DORMOUSE_ASSIGN(state.store_allocated_bytes, host::AllocatedBytes(spec.store_file));
  }
  DORMOUSE_ASSIGN(state.snapshot, IfThere(dm_.Find(NameOf(spec))));
  if (state.snapshot && state.snapshot->active) {
    DORMOUSE_ASSIGN(state.status, IfThere(dm_.Status(NameOf(spec))));
  }
  state.node = spec.node.empty() ? state.snapshot.has_value() : PathExists(spec.node);
  return state;
}

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

Result<> RootDisks::EnsureNode(const RootDiskSpec& spec) {
  return Step(spec, "disk.node", [&]() -> Result<> {
    return spec.node.empty() ? Result<>() : dm_.MakeNode(NameOf(spec), spec.node, spec.owner);
  });
}

Result<host::DeviceNumber> RootDisks::Prepare(const RootDiskSpec& spec) {
  DORMOUSE_TRY(EnsureBaseLoop(spec));
  DORMOUSE_TRY(EnsureOrigin(spec));
  DORMOUSE_TRY(EnsureStoreFile(spec));
  DORMOUSE_TRY(EnsureStoreLoop(spec));
  DORMOUSE_TRY(EnsureSnapshot(spec));
  DORMOUSE_TRY(EnsureNode(spec));
  DORMOUSE_ASSIGN(const auto device, dm_.Find(NameOf(spec)));
  return device.number;
}

Result<> RootDisks::RemoveSnapshot(const RootDiskSpec& spec) {
  return Step(spec, "disk.remove-snapshot", [&]() -> Result<> {
    // The device first: while it is held, whoever looks must still find its node.
    DORMOUSE_TRY(dm_.Remove(NameOf(spec)));
    return spec.node.empty() ? Result<>() : RemoveFile(spec.node);
  });
}

Result<> RootDisks::DetachStoreLoop(const RootDiskSpec& spec) {
  return Step(spec, "disk.detach-store", [&]() -> Result<> {
    DORMOUSE_ASSIGN(const auto loop, loops_.FindByTag(StoreLoopTag(spec.short_id)));
    return loop ? loops_.Detach(*loop) : Result<>();
  });
}

Result<> RootDisks::RemoveStoreFile(const RootDiskSpec& spec) {
  return Step(spec, "disk.remove-store", [&]() -> Result<> {
    DORMOUSE_TRY(RemoveFile(spec.store_file + ".new"));
    return RemoveFile(spec.store_file);
  });
}

Result<> RootDisks::ReleaseBase(const RootDiskSpec& spec) {
  return Step(spec, "disk.release-base", [&]() -> Result<> {
    DORMOUSE_TRY(bases_.Release(spec.base, spec.disk_bytes));
    return {};
  });
}

Result<> RootDisks::Release(const RootDiskSpec& spec) {
  DORMOUSE_TRY(RemoveSnapshot(spec));
  DORMOUSE_TRY(DetachStoreLoop(spec));
  return ReleaseBase(spec);
}

Result<> RootDisks::Remove(const RootDiskSpec& spec) {
  DORMOUSE_TRY(Release(spec));
  return RemoveStoreFile(spec);
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

Result<> RootDisks::Flatten(const RootDiskSpec& spec, const std::string& file) {
  const std::string unfinished = file + ".new";
  DORMOUSE_TRY(RemoveFile(unfinished));
  const auto copy = [&]() -> Result<> {
    DORMOUSE_ASSIGN(const UniqueFd from, host::OpenFile(spec.node, O_RDONLY));
    DORMOUSE_ASSIGN(const UniqueFd to, host::OpenFile(unfinished, O_WRONLY | O_CREAT | O_EXCL));
    DORMOUSE_TRY(CopyDevice(from.get(), to.get(), spec.disk_bytes));
    if (::rename(unfinished.c_str(), file.c_str()) != 0) return FailErrno("rename");
    return SyncDirectory(file.substr(0, file.rfind('/')));
  };
  auto copied = copy();
  if (copied) return {};
  (void)RemoveFile(unfinished);  // the first failure is the one to tell
  return Fail(copied.error().Wrap("flatten " + NameOf(spec).str() + " into " + file));
}

}  // namespace dormouse::disk
