#include "node-agent/host/sparse_files.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <vector>

#include "src/common/base/files.h"

namespace dormouse::host {
namespace {

constexpr size_t kCopyBlock = 1 << 20;
constexpr uint64_t kMaxFileBytes = std::numeric_limits<off_t>::max();

Result<> CopyExtent(int from, int to, const Extent& extent, std::vector<char>* block) {
  uint64_t offset = extent.offset;
  const uint64_t end = extent.offset + extent.length;
  while (offset < end) {
    const size_t want = static_cast<size_t>(std::min<uint64_t>(block->size(), end - offset));
    const ssize_t got = ::pread(from, block->data(), want, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno("read");
    if (got == 0) return {};  // shorter than it was: the size is checked by the caller's digest
    for (ssize_t done = 0; done < got;) {
      const ssize_t put = ::pwrite(to, block->data() + done, static_cast<size_t>(got - done),
                                   static_cast<off_t>(offset) + done);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) return FailErrno("write");
      done += put;
    }
    offset += static_cast<uint64_t>(got);
  }
  return {};
}

Result<> ShareExtents(int from, int to) {
  if (::ioctl(to, FICLONE, from) == 0) return {};
  if (errno == EOPNOTSUPP || errno == EXDEV || errno == ENOTTY || errno == EINVAL ||
      errno == ENOSYS) {
    return Fail(ErrorCode::kUnsupported, "reflink: the file system cannot");
  }
  return FailErrno("reflink");
}

Result<> CopyData(int from, int to, uint64_t max_bytes) {
  struct stat info {};
  if (::fstat(from, &info) != 0) return FailErrno("stat");
  const uint64_t size = std::min(static_cast<uint64_t>(info.st_size), max_bytes);
  if (::ftruncate(to, static_cast<off_t>(size)) != 0) return FailErrno("size");
  std::vector<char> block(kCopyBlock);
  for (uint64_t offset = 0; offset < size;) {
    DORMOUSE_ASSIGN(auto extent, NextData(from, offset));
    if (!extent || extent->offset >= size) break;
    extent->length = std::min(extent->length, size - extent->offset);
    DORMOUSE_TRY(CopyExtent(from, to, *extent, &block));
    offset = extent->offset + extent->length;
  }
  return {};
}

// A new file `to`, filled by `fill`; none is left where that fails.
template <typename Fill>
Result<> MakeCopy(const std::string& from, const std::string& to, Fill fill) {
  DORMOUSE_ASSIGN(const UniqueFd source, OpenFile(from, O_RDONLY));
  DORMOUSE_ASSIGN(const UniqueFd target, OpenFile(to, O_WRONLY | O_CREAT | O_EXCL));
  auto filled = fill(source.get(), target.get());
  if (filled) return {};
  ::unlink(to.c_str());
  return Fail(filled.error().Wrap("copy " + from + " to " + to));
}

}  // namespace

Result<UniqueFd> OpenFile(const std::string& path, int flags, unsigned mode) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) return FailErrno("open " + path);
  return fd;
}

Result<uint64_t> AllocatedBytes(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return FailErrno("stat " + path);
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

Result<uint64_t> SizeBytes(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return FailErrno("stat " + path);
  return static_cast<uint64_t>(status.st_size);
}

Result<> Reflink(const std::string& from, const std::string& to) {
  return MakeCopy(from, to, ShareExtents);
}

Result<> CopySparse(const std::string& from, const std::string& to) {
  return MakeCopy(from, to,
                  [](int source, int target) { return CopyData(source, target, kMaxFileBytes); });
}

Result<bool> CloneFile(const std::string& from, const std::string& to) {
  bool shared = false;
  DORMOUSE_TRY(MakeCopy(from, to, [&](int source, int target) -> Result<> {
    DORMOUSE_ASSIGN(shared, CloneContent(source, target, kMaxFileBytes));
    return {};
  }));
  return shared;
}

Result<bool> CloneContent(int from, int to, uint64_t max_bytes) {
  auto shared = ShareExtents(from, to);
  if (shared) return true;
  if (shared.error().code() != ErrorCode::kUnsupported) return Fail(shared.error());
  DORMOUSE_TRY(CopyData(from, to, max_bytes + (max_bytes < kMaxFileBytes ? 1 : 0)));
  return false;
}

Result<> Allocate(int fd, uint64_t offset, uint64_t length) {
  for (;;) {
    if (::fallocate(fd, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(length)) == 0)
      return {};
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP)
      return Fail(ErrorCode::kUnsupported, "fallocate: the file system cannot");
    return FailErrno("fallocate " + std::to_string(length) + " bytes");
  }
}

Result<std::optional<Extent>> NextData(int fd, uint64_t offset) {
  const off_t data = ::lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0) {
    if (errno == ENXIO) return std::nullopt;
    return FailErrno("SEEK_DATA");
  }
  const off_t hole = ::lseek(fd, data, SEEK_HOLE);
  if (hole < 0) return FailErrno("SEEK_HOLE");
  return Extent{static_cast<uint64_t>(data), static_cast<uint64_t>(hole - data)};
}

Result<uint64_t> DataBytes(const std::string& path) {
  DORMOUSE_ASSIGN(const UniqueFd file, OpenFile(path, O_RDONLY));
  uint64_t bytes = 0;
  for (uint64_t offset = 0;;) {
    DORMOUSE_ASSIGN(const auto extent, NextData(file.get(), offset));
    if (!extent) return bytes;
    bytes += extent->length;
    offset = extent->offset + extent->length;
  }
}

Result<FileSystemSpace> SpaceOf(const std::string& path) {
  struct statvfs status {};
  if (::statvfs(path.c_str(), &status) != 0) return FailErrno("statvfs " + path);
  return FileSystemSpace{static_cast<uint64_t>(status.f_blocks) * status.f_frsize,
                         static_cast<uint64_t>(status.f_bfree) * status.f_frsize};
}

}  // namespace dormouse::host
