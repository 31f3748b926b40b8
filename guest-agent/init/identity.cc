#include "guest-agent/init/identity.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "src/common/base/unique_fd.h"

namespace dormouse::guest {
namespace {

/// A read-only disk is the image's own wish, and no reason to refuse a clone.
Result<void> FailOrNote(const std::string& what, int errnum, std::vector<std::string>& notes) {
  if (errnum != EROFS) return FailErrno(what, errnum);
  notes.push_back(Error::FromErrno(what, errnum).message());
  return {};
}

enum class Seen { kWritten, kAbsent, kOther };

/// Overwrites a regular file, times and all: what fdatasync would leave to the file system's next
/// commit wakes the guest again five seconds later. Links are not followed: they lead to one that
/// is written too, or out of what is ours.
Result<Seen> Overwrite(const std::string& path, std::string_view text) {
  // O_NONBLOCK: a pipe in its place is an error, not a wait.
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd && errno == ENOENT) return Seen::kAbsent;
  if (!fd && (errno == ELOOP || errno == ENXIO || errno == EISDIR)) return Seen::kOther;
  struct stat info {};
  if (!fd || ::fstat(fd.get(), &info) != 0) return FailErrno("open " + path);
  if (!S_ISREG(info.st_mode)) return Seen::kOther;
  if (::pwrite(fd.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()) ||
      ::ftruncate(fd.get(), static_cast<off_t>(text.size())) != 0 || ::fsync(fd.get()) != 0) {
    return FailErrno("write " + path);
  }
  return Seen::kWritten;
}

/// A new file in the place of nothing, or of what is no file. One commit is of its content and its
/// name: no program runs before that.
Result<void> Create(const std::string& path, std::string_view text) {
  const std::string temporary = path + ".dormouse";
  (void)::unlink(temporary.c_str());
  const UniqueFd fd(
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444));
  if (!fd) return FailErrno("make " + temporary);
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::rename(temporary.c_str(), path.c_str()) != 0 || ::fsync(fd.get()) != 0) {
    const int errnum = errno;
    (void)::unlink(temporary.c_str());
    return FailErrno("write " + path, errnum);
  }
  return {};
}

}  // namespace

Result<void> WriteMachineId(const std::string& root, const std::string& machine_id,
                            std::vector<std::string>& notes) {
  const std::string text = machine_id + "\n";
  for (const char* name : {"/run/machine-id", "/var/lib/dbus/machine-id", "/etc/machine-id"}) {
    const std::string path = root + name;
    const auto seen = Overwrite(path, text);
    if (!seen) {
      DORMOUSE_TRY(FailOrNote("write " + path, seen.error().errnum(), notes));
      continue;
    }
    if (*seen == Seen::kWritten || std::string_view(name) != "/etc/machine-id") continue;
    if (::access((root + "/etc").c_str(), F_OK) != 0) continue;
    if (const auto made = Create(path, text); !made) {
      DORMOUSE_TRY(FailOrNote("make " + path, made.error().errnum(), notes));
    }
  }
  return {};
}

Result<void> RemoveSshHostKeys(const std::string& root, std::vector<std::string>& notes) {
  const std::string path = root + "/etc/ssh";
  DIR* const dir = ::opendir(path.c_str());
  if (dir == nullptr) return {};
  Result<void> removed;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string_view name(entry->d_name);
    if (!name.starts_with("ssh_host_")) continue;
    if (::unlinkat(::dirfd(dir), entry->d_name, 0) == 0 || errno == ENOENT || errno == EISDIR) {
      continue;
    }
    removed = FailOrNote("remove " + path + "/" + entry->d_name, errno, notes);
    if (!removed) break;
  }
  ::closedir(dir);
  return removed;
}

}  // namespace dormouse::guest
