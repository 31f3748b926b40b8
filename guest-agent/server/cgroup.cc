#include "guest-agent/server/cgroup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

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

Result<void> Cgroup::SetFrozen(bool frozen) const {
  if (path_.empty()) return {};
  const std::string file = path_ + "/cgroup.freeze";
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return FailErrno("open " + file);
  if (::write(fd.get(), frozen ? "1" : "0", 1) != 1) return FailErrno("write " + file);
  return {};
}

UniqueFd Cgroup::OpenEvents() const {
  if (path_.empty()) return {};
  return UniqueFd(::open((path_ + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
}

bool SaysFrozen(const UniqueFd& events) {
  if (!events) return true;
  char text[256];
  const ssize_t got = ::pread(events.get(), text, sizeof(text), 0);
  const std::string_view seen(text, got > 0 ? static_cast<size_t>(got) : 0);
  return seen.find("frozen 1") != std::string_view::npos;
}

}  // namespace dormouse::guest
