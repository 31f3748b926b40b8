#include "src/common/base/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>

#include "src/common/base/unique_fd.h"

namespace dormouse {
namespace {

std::string ParentOf(const std::string& path) {
  const auto slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Names no two writers of this process share; those of a dead process are overwritten by O_TRUNC.
std::string TemporaryName(const std::string& path) {
  static std::atomic<unsigned> counter{0};
  return path + ".tmp" + std::to_string(counter.fetch_add(1));
}

Result<> WriteWhole(const std::string& path, std::string_view content, mode_t mode) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd) return FailErrno("create " + path);
  DORMOUSE_TRY(WriteAll(fd.get(), content));
  if (::fsync(fd.get()) != 0) return FailErrno("fsync " + path);
  return {};
}

Result<> RemoveTreeAt(int parent, const char* name, dev_t device, const std::string& shown) {
  if (::unlinkat(parent, name, 0) == 0 || errno == ENOENT) return {};
  if (errno != EISDIR && errno != EPERM) return FailErrno("unlink " + shown);
  UniqueFd fd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return FailErrno("open " + shown);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return FailErrno("stat " + shown);
  if (info.st_dev != device)
    return Fail(ErrorCode::kBusy, "remove " + shown + ": something is mounted there");
  std::vector<std::string> names;
  {
    UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
    DIR* dir = copy ? ::fdopendir(copy.get()) : nullptr;
    if (dir == nullptr) return FailErrno("list " + shown);
    (void)copy.Release();
    while (const dirent* entry = ::readdir(dir)) {
      const std::string_view entry_name = entry->d_name;
      if (entry_name != "." && entry_name != "..") names.emplace_back(entry_name);
    }
    ::closedir(dir);
  }
  for (const std::string& child : names) {
    DORMOUSE_TRY(RemoveTreeAt(fd.get(), child.c_str(), device, shown + "/" + child));
  }
  if (::unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
    return FailErrno("rmdir " + shown);
  return {};
}

}  // namespace

Result<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return FailErrno("open " + path);
  return ReadDescriptor(fd.get(), max_bytes, path);
}

Result<std::string> ReadDescriptor(int fd, size_t max_bytes, const std::string& shown) {
  std::string content;
  char buffer[16384];
  while (true) {
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno("read " + shown);
    if (got == 0) return content;
    content.append(buffer, static_cast<size_t>(got));
    if (content.size() > max_bytes) {
      return Fail(ErrorCode::kInvalid,
                  "read " + shown + ": larger than " + std::to_string(max_bytes) + " bytes");
    }
  }
}

Result<> WriteFileAtomically(const std::string& path, std::string_view content, mode_t mode) {
  const std::string temporary = TemporaryName(path);
  if (auto written = WriteWhole(temporary, content, mode); !written) {
    ::unlink(temporary.c_str());
    return written;
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int errnum = errno;
    ::unlink(temporary.c_str());
    return FailErrno("rename to " + path, errnum);
  }
  return SyncDirectory(ParentOf(path));
}

Result<> WriteKernelFile(const std::string& path, std::string_view content) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return FailErrno("open " + path);
  const ssize_t written = ::write(fd.get(), content.data(), content.size());
  if (written < 0) return FailErrno("write " + path);
  return {};
}

Result<> MakeDirectories(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) == 0) return {};
  if (errno == EEXIST) return {};
  if (errno != ENOENT) return FailErrno("mkdir " + path);
  DORMOUSE_TRY(MakeDirectories(ParentOf(path), mode));
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) return FailErrno("mkdir " + path);
  return {};
}

Result<> SyncDirectory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return FailErrno("open " + path);
  if (::fsync(fd.get()) != 0) return FailErrno("fsync " + path);
  return {};
}

Result<> SyncFile(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return FailErrno("open " + path);
  if (::fsync(fd.get()) != 0) return FailErrno("fsync " + path);
  return {};
}

Result<> RemoveFile(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return FailErrno("unlink " + path);
  return {};
}

Result<> RemoveTree(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return {};
    return FailErrno("stat " + path);
  }
  struct stat parent {};
  if (::stat(ParentOf(path).c_str(), &parent) != 0) return FailErrno("stat " + ParentOf(path));
  return RemoveTreeAt(AT_FDCWD, path.c_str(), parent.st_dev, path);
}

Result<std::vector<std::string>> ListDirectory(const std::string& path) {
  std::vector<std::string> names;
  DIR* dir = ::opendir(path.c_str());
  if (dir == nullptr) {
    if (errno == ENOENT) return names;
    return FailErrno("list " + path);
  }
  while (const dirent* entry = ::readdir(dir)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  ::closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

bool PathExists(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

Result<> WriteAll(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FailErrno("write");
    content.remove_prefix(static_cast<size_t>(written));
  }
  return {};
}

}  // namespace dormouse
