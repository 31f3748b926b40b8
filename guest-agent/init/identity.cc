#include "guest-agent/init/identity.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

namespace dormouse::guest {

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
    const std::string what = "remove " + path + "/" + entry->d_name;
    const int errnum = errno;
    // A read-only disk is the image's own wish, and a full one may have no room for a change of a
    // directory: no reason to refuse a clone.
    if (errnum != EROFS && errnum != ENOSPC) {
      removed = FailErrno(what, errnum);
      break;
    }
    notes.push_back(Error::FromErrno(what, errnum).message());
  }
  ::closedir(dir);
  return removed;
}

}  // namespace dormouse::guest
