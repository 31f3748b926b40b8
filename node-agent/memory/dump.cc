#include "node-agent/memory/dump.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "node-agent/host/sparse_files.h"
#include "node-agent/memory/pagemap.h"
#include "node-agent/memory/zero.h"
#include "src/common/base/files.h"

namespace dormouse::memory {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{1} << 20;
// The disk works while we read on, so that the fsync at the end waits for the last few MiB only.
constexpr uint64_t kWritebackBytes = uint64_t{8} << 20;
// Reading a page of another process costs more than writing it: while the guest stands still a
// second lane is worth its thread, from so many bytes on.
constexpr uint64_t kSecondLaneBytes = uint64_t{16} << 20;

// Diverged pages in a row, and their place in the file.
struct Diverged {
  uint64_t address = 0;
  uint64_t length = 0;
  uint64_t offset = 0;
};

// What a dump finds in its file.
enum class Found {
  kNothing,
  kPrevious,  ///< the image that RAM is mapped from: right, but for what has diverged
  kAhead,     ///< DumpAhead's: like RAM, but for what has changed since
};

std::string At(uint64_t offset) {
  return " at offset " + std::to_string(offset);
}

// False, with errno, where the file system cannot or has no room for that.
bool PunchOut(int file, uint64_t offset, uint64_t size) {
  int result = 0;
  do {
    result = ::fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         static_cast<off_t>(offset), static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

class Dump {
 public:
  Dump(const host::Process& process, int file, Found found)
      : process_(process),
        file_(file),
        found_(found),
        block_(std::make_unique_for_overwrite<char[]>(kBlockBytes)) {
    if (found == Found::kAhead) ahead_ = std::make_unique_for_overwrite<char[]>(kBlockBytes);
  }

  // The runs, which are in order, of this part of the file.
  Result<DumpResult> All(const Diverged* run, const Diverged* end, FileRun part) {
    uint64_t at = part.offset;
    for (; run != end; ++run) {
      DORMOUSE_TRY(Untouched(at, run->offset));
      DORMOUSE_TRY(Run(run->address, run->length, run->offset));
      at = run->offset + run->length;
    }
    DORMOUSE_TRY(Untouched(at, part.offset + part.length));
    DORMOUSE_TRY(Punch());
    StartWriteback();
    return std::move(result_);
  }

 private:
  // A run of diverged pages at `address`, which belongs to the file at `offset`.
  Result<> Run(uint64_t address, uint64_t length, uint64_t offset) {
    result_.diverged_bytes += length;
    if (!result_.changed.empty() &&
        result_.changed.back().offset + result_.changed.back().length == offset) {
      result_.changed.back().length += length;
    } else {
      result_.changed.push_back({offset, length});
    }
    for (uint64_t done = 0; done < length;) {
      const uint64_t size = std::min(kBlockBytes, length - done);
      DORMOUSE_TRY(process_.ReadMemory(address + done, block_.get(), size));
      DORMOUSE_TRY(Store(size, offset + done));
      done += size;
    }
    return {};
  }

  // Memory that is anonymous, and was never touched or has been given back, is zero.
  Result<> Untouched(uint64_t from, uint64_t to) {
    return found_ == Found::kAhead && from < to ? Zero(from, to - from) : Result<>();
  }

  // The block, in runs of pages that are all zeros or all not.
  Result<> Store(uint64_t size, uint64_t offset) {
    for (uint64_t at = 0; at < size;) {
      const bool zero = IsZero(block_.get() + at, kPageBytes);
      uint64_t end = at + kPageBytes;
      while (end < size && IsZero(block_.get() + end, kPageBytes) == zero) end += kPageBytes;
      DORMOUSE_TRY(zero ? Zero(offset + at, end - at)
                        : WriteChanged(block_.get() + at, end - at, offset + at));
      at = end;
    }
    return {};
  }

  // But for the pages that were written ahead and are so still.
  Result<> WriteChanged(const char* data, uint64_t size, uint64_t offset) {
    if (found_ != Found::kAhead) return Write(data, size, offset);
    const ssize_t got = ::pread(file_, ahead_.get(), size, static_cast<off_t>(offset));
    // What cannot be compared is written.
    if (got != static_cast<ssize_t>(size)) return Write(data, size, offset);
    const auto same = [&](uint64_t at) {
      return std::memcmp(data + at, ahead_.get() + at, kPageBytes) == 0;
    };
    for (uint64_t at = 0; at < size;) {
      const bool known = same(at);
      uint64_t end = at + kPageBytes;
      while (end < size && same(end) == known) end += kPageBytes;
      if (!known) DORMOUSE_TRY(Write(data + at, end - at, offset + at));
      at = end;
    }
    return {};
  }

  Result<> Write(const char* data, uint64_t size, uint64_t offset) {
    for (uint64_t done = 0; done < size;) {
      const ssize_t put =
          ::pwrite(file_, data + done, size - done, static_cast<off_t>(offset + done));
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return FailErrno("write" + At(offset + done));
      done += static_cast<uint64_t>(put);
    }
    result_.written_bytes += size;
    dirty_from_ = dirty_bytes_ == 0 ? offset : std::min(dirty_from_, offset);
    dirty_end_ = dirty_bytes_ == 0 ? offset + size : std::max(dirty_end_, offset + size);
    dirty_bytes_ += size;
    if (dirty_bytes_ >= kWritebackBytes) StartWriteback();
    return {};
  }

  // Only a hint: what fails here fails again in the caller's fsync, and is reported there.
  void StartWriteback() {
    if (dirty_bytes_ == 0) return;
    (void)::sync_file_range(file_, static_cast<off_t>(dirty_from_),
                            static_cast<off_t>(dirty_end_ - dirty_from_), SYNC_FILE_RANGE_WRITE);
    dirty_bytes_ = 0;
  }

  // Gathers neighbours: each punch is a transaction of the file system.
  Result<> Zero(uint64_t offset, uint64_t size) {
    if (found_ == Found::kNothing) return {};
    if (zeros_.offset + zeros_.length != offset) {
      DORMOUSE_TRY(Punch());
      zeros_ = {offset, 0};
    }
    zeros_.length += size;
    return {};
  }

  Result<> Punch() {
    const FileRun zeros = std::exchange(zeros_, {});
    const uint64_t end = zeros.offset + zeros.length;
    for (uint64_t at = zeros.offset; at < end;) {
      DORMOUSE_ASSIGN(const auto data, host::NextData(file_, at));
      if (!data || data->offset >= end) break;
      const uint64_t size = std::min(data->offset + data->length, end) - data->offset;
      DORMOUSE_TRY(PunchHole(data->offset, size));
      at = data->offset + size;
    }
    return {};
  }

  Result<> PunchHole(uint64_t offset, uint64_t size) {
    if (!PunchOut(file_, offset, size)) {
      if (errno != EOPNOTSUPP) return FailErrno("punch a hole" + At(offset));
      return WriteZeros(offset, size);
    }
    result_.punched_bytes += size;
    return {};
  }

  Result<> WriteZeros(uint64_t offset, uint64_t size) {
    const auto zeros = std::make_unique<char[]>(std::min(kBlockBytes, size));
    for (uint64_t done = 0; done < size;) {
      const uint64_t part = std::min(kBlockBytes, size - done);
      DORMOUSE_TRY(Write(zeros.get(), part, offset + done));
      done += part;
    }
    return {};
  }

  const host::Process& process_;
  const int file_;
  const Found found_;
  const std::unique_ptr<char[]> block_;
  std::unique_ptr<char[]> ahead_;  ///< the file's, beside block_
  FileRun zeros_;
  uint64_t dirty_from_ = 0, dirty_end_ = 0, dirty_bytes_ = 0;
  DumpResult result_;
};

Result<Found> WhatIsIn(int fd, const RamMap& map, const std::string& file) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return FailErrno("stat " + file);
  if (static_cast<uint64_t>(info.st_size) != map.bytes) {
    return Fail(ErrorCode::kInvalid, file + " has " + std::to_string(info.st_size) +
                                         " bytes, guest RAM " + std::to_string(map.bytes));
  }
  if (map.from_file) return Found::kPrevious;
  DORMOUSE_ASSIGN(const auto data, host::NextData(fd, 0));
  return data ? Found::kAhead : Found::kNothing;
}

// About half of the bytes of `runs`: the one in the middle is cut in two, so that a single run is
// shared as well.
size_t SplitInHalf(uint64_t bytes, std::vector<Diverged>* runs) {
  uint64_t before = 0;
  for (size_t i = 0; i < runs->size(); ++i) {
    Diverged& run = (*runs)[i];
    if (before + run.length < bytes / 2) {
      before += run.length;
      continue;
    }
    const uint64_t first = (bytes / 2 - before) / kPageBytes * kPageBytes;
    if (first == 0) return i;
    const Diverged rest{run.address + first, run.length - first, run.offset + first};
    run.length = first;
    runs->insert(runs->begin() + static_cast<std::ptrdiff_t>(i) + 1, rest);
    return i + 1;
  }
  return runs->size();
}

DumpResult Joined(DumpResult first, const DumpResult& second) {
  first.diverged_bytes += second.diverged_bytes;
  first.written_bytes += second.written_bytes;
  first.punched_bytes += second.punched_bytes;
  for (const FileRun& run : second.changed) {
    if (!first.changed.empty() &&
        first.changed.back().offset + first.changed.back().length == run.offset) {
      first.changed.back().length += run.length;
    } else {
      first.changed.push_back(run);
    }
  }
  return first;
}

// A dump that failed, for lack of room as like as not, keeps none: what is diverged is read from
// the process, and written again by the next. What fails here costs room, and nothing else.
void GiveBack(int file, const std::vector<Diverged>& runs) {
  for (const Diverged& run : runs) (void)PunchOut(file, run.offset, run.length);
}

Result<DumpResult> DumpInto(const host::Process& process, const RamMap& map,
                            const std::string& file) {
  DORMOUSE_ASSIGN(const UniqueFd target, host::OpenFile(file, O_RDWR));
  DORMOUSE_ASSIGN(const Found found, WhatIsIn(target.get(), map, file));
  DORMOUSE_ASSIGN(const Pagemap pagemap, Pagemap::Open(process));
  std::vector<Diverged> runs;
  uint64_t bytes = 0;
  uint64_t scanned = 0;
  for (const RamSegment& segment : map.segments) {
    DORMOUSE_TRY(pagemap.Scan(
        segment.address, segment.length, [&](uint64_t address, uint64_t length) -> Result<> {
          runs.push_back({address, length, segment.file_offset + (address - segment.address)});
          bytes += length;
          return {};
        }));
    scanned += segment.length / kPageBytes;
  }
  const auto dump = [&](size_t first, size_t end) {
    const uint64_t from = first == 0 ? 0 : runs[first].offset;
    const uint64_t to = end == runs.size() ? map.bytes : runs[end].offset;
    return Dump(process, target.get(), found)
        .All(runs.data() + first, runs.data() + end, {from, to - from});
  };
  const size_t half = bytes < kSecondLaneBytes ? runs.size() : SplitInHalf(bytes, &runs);
  Result<DumpResult> second;
  std::thread lane;
  if (half < runs.size()) lane = std::thread([&] { second = dump(half, runs.size()); });
  auto first = dump(0, half);
  if (lane.joinable()) lane.join();
  if (!first || !second) {
    if (map.from_file) GiveBack(target.get(), runs);
    return first ? second : first;
  }
  DumpResult whole = Joined(std::move(*first), *second);
  whole.scanned_pages = scanned;
  return whole;
}

Result<> CheckPrevious(const std::string& previous, uint64_t bytes) {
  DORMOUSE_ASSIGN(const uint64_t size, host::SizeBytes(previous));
  if (size == bytes) return {};
  return Fail(ErrorCode::kCorrupt, previous + " has " + std::to_string(size) +
                                       " bytes, guest RAM " + std::to_string(bytes));
}

}  // namespace

Result<bool> MakeMemoryFile(const std::optional<std::string>& previous, uint64_t bytes,
                            const std::string& path) {
  if (previous) {
    DORMOUSE_TRY(CheckPrevious(*previous, bytes));
    return host::CloneFile(*previous, path);
  }
  DORMOUSE_ASSIGN(const UniqueFd file, host::OpenFile(path, O_WRONLY | O_CREAT | O_EXCL));
  if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
    const int failed = errno;
    (void)RemoveFile(path);
    return FailErrno("size " + path, failed);
  }
  return false;
}

Result<> ContinueMemoryFile(const std::string& previous, uint64_t bytes, const std::string& path) {
  DORMOUSE_TRY(CheckPrevious(previous, bytes));
  if (::link(previous.c_str(), path.c_str()) != 0) return FailErrno("link " + previous);
  return {};
}

Result<uint64_t> DumpAhead(const host::Process& process, const RamMap& map,
                           const std::string& file) {
  if (map.from_file)
    return Fail(ErrorCode::kInvalid, "memory that is mapped from a file is not dumped ahead");
  auto written = DumpInto(process, map, file).and_then([&](const DumpResult& dumped) {
    return SyncFile(file).map([&] { return dumped.written_bytes; });
  });
  if (written) return written;
  // Pages that an fsync could not write are clean afterwards: a dump that compared with them would
  // leave them out, and its own fsync would say nothing.
  const auto target = host::OpenFile(file, O_RDWR);
  if (!target || !PunchOut(target->get(), 0, map.bytes)) DORMOUSE_TRY(RemoveFile(file));
  return written;
}

Result<DumpResult> DumpDiverged(const host::Process& process, const RamMap& map,
                                const std::string& file) {
  auto dumped = DumpInto(process, map, file);
  if (dumped) return dumped;
  const std::string pid = std::to_string(process.identity().pid);
  return Fail(dumped.error().Wrap("dump memory of " + pid + " to " + file));
}

}  // namespace dormouse::memory
