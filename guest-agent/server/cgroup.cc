#include "guest-agent/server/cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace dormouse::guest {

Result<Cgroup> Cgroup::Create(const std::string& parent, const std::string& name) {
  Cgroup group;
  if (parent.empty()) return group;
  group.path_ = parent + "/" + name;
  if (::mkdir(group.path_.c_str(), 0755) != 0 && errno != EEXIST) {
    return FailErrno("make cgroup " + group.path_);
  }
  group.procs_ = UniqueFd(::open((group.path_ + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
  if (!group.procs_) return FailErrno("open " + group.path_ + "/cgroup.procs");
  return group;
}

void Cgroup::KillAll() const {
  if (path_.empty()) return;
  const UniqueFd fd(::open((path_ + "/cgroup.kill").c_str(), O_WRONLY | O_CLOEXEC));
  if (fd) (void)!::write(fd.get(), "1", 1);
}

}  // namespace dormouse::guest
