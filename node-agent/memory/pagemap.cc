#include "node-agent/memory/pagemap.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "node-agent/host/sparse_files.h"
#include "node-agent/memory/ram_map.h"

namespace dormouse::memory {
namespace {

constexpr uint64_t kEntriesAtOnce = 32 * 1024;  // 256 KiB, for 128 MiB of RAM

Result<> ReadEntries(int fd, uint64_t first_page, uint64_t pages, uint64_t* entries) {
  auto* bytes = reinterpret_cast<char*>(entries);
  const size_t want = pages * sizeof(uint64_t);
  for (size_t done = 0; done < want;) {
    const ssize_t got = ::pread(fd, bytes + done, want - done,
                                static_cast<off_t>(first_page * sizeof(uint64_t) + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno("read pagemap");
    if (got == 0) return Fail(ErrorCode::kUnavailable, "read pagemap: the process is gone");
    done += static_cast<size_t>(got);
  }
  return {};
}

}  // namespace

Result<Pagemap> Pagemap::Open(const host::Process& process) {
  DORMOUSE_ASSIGN(UniqueFd fd, host::OpenFile(process.ProcFile("pagemap"), O_RDONLY));
  return Pagemap(std::move(fd));
}

Result<> Pagemap::Scan(uint64_t address, uint64_t length, const Run& run) const {
  const uint64_t first = address / kPageBytes;
  const uint64_t end = first + length / kPageBytes;
  std::vector<uint64_t> entries(std::min(kEntriesAtOnce, end - first));
  uint64_t run_start = 0;
  uint64_t run_pages = 0;
  const auto tell = [&]() -> Result<> {
    if (run_pages == 0) return {};
    return run(run_start * kPageBytes, std::exchange(run_pages, 0) * kPageBytes);
  };
  for (uint64_t page = first; page < end;) {
    const uint64_t count = std::min<uint64_t>(entries.size(), end - page);
    DORMOUSE_TRY(ReadEntries(fd_.get(), page, count, entries.data()));
    for (uint64_t i = 0; i < count; ++i) {
      if (!HasDiverged(entries[i])) {
        DORMOUSE_TRY(tell());
      } else if (run_pages++ == 0) {
        run_start = page + i;
      }
    }
    page += count;
  }
  return tell();
}

}  // namespace dormouse::memory
