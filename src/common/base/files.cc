#include "src/common/base/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>

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

// Beneath `parent`, and not where something else is mounted: EXDEV. A link is ELOOP.
int OpenDirectoryIn(int parent, const char* name) {
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  return static_cast<int>(::syscall(SYS_openat2, parent, name, &how, sizeof(how)));
}

// Removes all that is below one directory. It never holds more than three descriptors, remembers no
// name, and goes down only: a directory inside that is not empty is moved up into the top one, to
// be emptied there. So depth and number of names cost time alone, and no ".." can lead out of the
// tree while somebody moves its parts about.
class TreeRemoval {
 public:
  TreeRemoval(UniqueFd top, std::string shown) : top_(std::move(top)), shown_(std::move(shown)) {}

  Result<> Empty() {
    DORMOUSE_TRY(KeepOthersOut(top_.get()));
    bool found = true;
    // Names that come and go while a directory is listed may be told or not: until there are none.
    while (found) {
      found = false;
      DORMOUSE_TRY(ForEachName(top_.get(), [&](const dirent& entry) {
        found = true;
        return RemoveName(entry);
      }));
    }
    return {};
  }

 private:
  tl::unexpected<Error> Refuse(const char* what) const {
    const int errnum = errno;
    if (errnum == EXDEV || errnum == EBUSY)
      return Fail(ErrorCode::kBusy, "remove " + shown_ + ": something is mounted in it");
    return FailErrno("remove " + shown_ + ": " + what, errnum);
  }

  // Whoever owned a directory, or opened it before, makes no more names in it: else it might never
  // be empty. The owner first, as that could change the mode back.
  Result<> KeepOthersOut(int directory) const {
    struct stat info {};
    if (::fstat(directory, &info) != 0) return Refuse("stat");
    if (info.st_uid != ::geteuid() &&
        ::fchown(directory, ::geteuid(), static_cast<gid_t>(-1)) != 0 && errno != EPERM) {
      return Refuse("chown");
    }
    if ((info.st_mode & 077) != 0 && ::fchmod(directory, 0700) != 0 && errno != EPERM)
      return Refuse("chmod");
    return {};
  }

  // `visit` is given a dirent.
  template <typename Visit>
  Result<> ForEachName(int directory, Visit visit) const {
    UniqueFd copy(::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(copy ? ::fdopendir(copy.get()) : nullptr,
                                                      &::closedir);
    if (!listing) return Refuse("list");
    (void)copy.Release();
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(listing.get());
      if (entry == nullptr) return errno == 0 ? Result<>() : Refuse("list");
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") DORMOUSE_TRY(visit(*entry));
    }
  }

  // False where it is a directory that is not empty.
  Result<bool> RemoveIfEmpty(int parent, const dirent& entry) const {
    if (entry.d_type != DT_DIR) {
      if (::unlinkat(parent, entry.d_name, 0) == 0 || errno == ENOENT) return true;
      if (errno != EISDIR && errno != EPERM) return Refuse("unlink");
    }
    if (::unlinkat(parent, entry.d_name, AT_REMOVEDIR) == 0 || errno == ENOENT) return true;
    if (errno != ENOTEMPTY && errno != EEXIST) return Refuse("rmdir");
    return false;
  }

  // A name in the top directory.
  Result<> RemoveName(const dirent& entry) {
    DORMOUSE_ASSIGN(bool removed, RemoveIfEmpty(top_.get(), entry));
    while (!removed) {
      const UniqueFd directory(OpenDirectoryIn(top_.get(), entry.d_name));
      if (!directory) return Refuse("open");
      DORMOUSE_TRY(KeepOthersOut(directory.get()));
      DORMOUSE_TRY(ForEachName(directory.get(), [&](const dirent& inner) -> Result<> {
        DORMOUSE_ASSIGN(const bool gone, RemoveIfEmpty(directory.get(), inner));
        return gone ? Result<>() : MoveUp(directory.get(), inner.d_name);
      }));
      DORMOUSE_ASSIGN(removed, RemoveIfEmpty(top_.get(), entry));
    }
    return {};
  }

  Result<> MoveUp(int parent, const char* name) {
    for (;;) {
      const std::string moved = ".removed-" + std::to_string(moved_++);
      if (::renameat(parent, name, top_.get(), moved.c_str()) == 0 || errno == ENOENT) return {};
      // The name is taken. Where it was an empty directory's that is gone now.
      if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR) return Refuse("rename");
    }
  }

  const UniqueFd top_;
  const std::string shown_;
  uint64_t moved_ = 0;
};

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
  const UniqueFd parent(::open(ParentOf(path).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!parent && errno == ENOENT) return {};
  if (!parent) return FailErrno("open " + ParentOf(path));
  const std::string name = path.substr(path.find_last_of('/') + 1);
  UniqueFd top(OpenDirectoryIn(parent.get(), name.c_str()));
  const bool directory = top.valid();
  if (directory) {
    DORMOUSE_TRY(TreeRemoval(std::move(top), path).Empty());
  } else if (errno == EXDEV) {
    return Fail(ErrorCode::kBusy, "remove " + path + ": something is mounted there");
  } else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP) {
    return FailErrno("open " + path);
  }
  if (::unlinkat(parent.get(), name.c_str(), directory ? AT_REMOVEDIR : 0) != 0 && errno != ENOENT)
    return FailErrno("remove " + path);
  return {};
}

Result<> EmptyDirectory(const std::string& path) {
  UniqueFd top(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!top && errno == ENOENT) return {};
  if (!top) return FailErrno("open " + path);
  return TreeRemoval(std::move(top), path).Empty();
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
