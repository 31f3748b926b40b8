#include "node-agent/disk/store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "node-agent/host/device_number.h"
#include "src/common/base/files.h"

namespace dormouse::disk {
namespace {

constexpr uint64_t kExceptionBytes = 16;  // struct disk_exception: two 64-bit chunk numbers
constexpr uint64_t kBlockBytes = 4096;

uint64_t DivideUp(uint64_t value, uint64_t by) {
  return (value + by - 1) / by;
}

}  // namespace

uint64_t WorstCaseStoreBytes(uint64_t disk_sectors, uint32_t chunk_sectors) {
  const uint64_t chunk_bytes = chunk_sectors * host::kSectorBytes;
  const uint64_t data_chunks = DivideUp(disk_sectors, chunk_sectors);
  const uint64_t areas = DivideUp(data_chunks, chunk_bytes / kExceptionBytes);
  // The header, and the area after the last: commit_exception() clears it when it has filled one.
  return (1 + data_chunks + areas + 1) * chunk_bytes;
}

std::optional<host::Extent> NextAllocation(uint64_t used_bytes, uint64_t allocated_bytes,
                                           uint64_t store_bytes, uint64_t window) {
  if (allocated_bytes >= store_bytes || used_bytes >= store_bytes) return std::nullopt;
  if (allocated_bytes >= used_bytes + window / 2) return std::nullopt;
  const uint64_t start = used_bytes / kBlockBytes * kBlockBytes;
  const uint64_t end = std::min(store_bytes, used_bytes + window);
  return host::Extent{start, end - start};
}

Result<> EnsureStore(const std::string& file, uint64_t disk_sectors, uint64_t window) {
  const uint64_t wanted = WorstCaseStoreBytes(disk_sectors);
  if (auto size = host::SizeBytes(file)) {
    if (*size == wanted) return {};
    return Fail(ErrorCode::kCorrupt, "store " + file + " has " + std::to_string(*size) +
                                         " bytes, not " + std::to_string(wanted));
  }
  const std::string directory = file.substr(0, file.rfind('/'));
  DORMOUSE_TRY(MakeDirectories(directory));
  const std::string unfinished = file + ".new";
  DORMOUSE_TRY(RemoveFile(unfinished));
  const auto make = [&]() -> Result<> {
    DORMOUSE_ASSIGN(const UniqueFd store, host::OpenFile(unfinished, O_RDWR | O_CREAT | O_EXCL));
    if (::ftruncate(store.get(), static_cast<off_t>(wanted)) != 0) return FailErrno("size");
    DORMOUSE_TRY(host::Allocate(store.get(), 0, std::min(window, wanted)));
    if (::fsync(store.get()) != 0) return FailErrno("fsync");
    if (::rename(unfinished.c_str(), file.c_str()) != 0) return FailErrno("rename");
    return SyncDirectory(directory);
  };
  auto made = make();
  if (made) return {};
  (void)RemoveFile(unfinished);  // the first failure is the one to tell
  return Fail(made.error().Wrap("make store " + file));
}

Result<uint64_t> AllocateAhead(const std::string& file, uint64_t used_bytes, uint64_t window) {
  DORMOUSE_ASSIGN(const uint64_t size, host::SizeBytes(file));
  DORMOUSE_ASSIGN(const uint64_t before, host::AllocatedBytes(file));
  const auto next = NextAllocation(used_bytes, before, size, window);
  if (!next) return 0;
  DORMOUSE_ASSIGN(const UniqueFd store, host::OpenFile(file, O_RDWR));
  auto allocated = host::Allocate(store.get(), next->offset, next->length);
  if (!allocated) return Fail(allocated.error().Wrap("allocate store " + file));
  DORMOUSE_ASSIGN(const uint64_t after, host::AllocatedBytes(file));
  return after > before ? after - before : 0;
}

}  // namespace dormouse::disk
