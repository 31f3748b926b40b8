#include "node-agent/host/cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>

#include "node-agent/host/sparse_files.h"
#include "src/common/base/files.h"

namespace dormouse::host {
namespace {

constexpr size_t kLargestControlFile = 1 << 20;
constexpr const char* kControllers[] = {"memory", "pids"};

bool HasWord(const std::string& text, const std::string& wanted) {
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (word == wanted) return true;
  }
  return false;
}

// Makes the controllers available to the children of `directory`.
Result<> EnableControllers(const std::string& directory, bool required) {
  DORMOUSE_ASSIGN(const std::string available,
                  ReadFile(directory + "/cgroup.controllers", kLargestControlFile));
  for (const std::string controller : kControllers) {
    if (!HasWord(available, controller)) {
      if (!required) continue;
      return Fail(ErrorCode::kUnsupported,
                  "cgroup " + directory + " has no " + controller + " controller");
    }
    auto enabled = WriteKernelFile(directory + "/cgroup.subtree_control", "+" + controller);
    if (!enabled && required)
      return Fail(enabled.error().Wrap("enable the " + controller + " controller"));
  }
  return {};
}

Result<> MakeGroup(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return FailErrno("make cgroup " + path);
  return {};
}

// The value of `key` in a "key value" file, or 0.
uint64_t FlatValue(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  std::string name;
  uint64_t value = 0;
  while (lines >> name >> value) {
    if (name == key) return value;
  }
  return 0;
}

Result<bool> IsPopulated(int events) {
  char text[256];
  const ssize_t length = ::pread(events, text, sizeof(text), 0);
  if (length < 0) return FailErrno("read cgroup.events");
  return FlatValue(std::string(text, static_cast<size_t>(length)), "populated") != 0;
}

}  // namespace

Result<Cgroups> Cgroups::Open(CgroupConfig config) {
  struct statfs file_system {};
  if (::statfs(config.mount_point.c_str(), &file_system) != 0)
    return FailErrno("statfs " + config.mount_point);
  if (file_system.f_type != CGROUP2_SUPER_MAGIC) {
    return Fail(ErrorCode::kUnsupported, config.mount_point + " is no cgroup2 file system");
  }
  DORMOUSE_TRY(EnableControllers(config.mount_point, config.require_controllers));
  const std::string slice = config.mount_point + "/" + config.slice;
  DORMOUSE_TRY(MakeGroup(slice));
  DORMOUSE_TRY(EnableControllers(slice, config.require_controllers));
  return Cgroups(std::move(config));
}

std::string Cgroups::PathOf(const std::string& name) const {
  return config_.mount_point + "/" + config_.slice + "/" + name;
}

bool Cgroups::Exists(const std::string& name) const {
  return PathExists(PathOf(name));
}

Result<> Cgroups::Create(const std::string& name, const CgroupLimits& limits) const {
  const std::string path = PathOf(name);
  DORMOUSE_TRY(MakeGroup(path));
  const auto set = [&](const char* file, const std::optional<uint64_t>& value) -> Result<> {
    const std::string target = path + "/" + file;
    if (!value || (!config_.require_controllers && !PathExists(target))) return {};
    return WriteKernelFile(target, std::to_string(*value));
  };
  DORMOUSE_TRY(set("memory.max", limits.memory_max_bytes));
  DORMOUSE_TRY(set("pids.max", limits.pids_max));
  // Out of memory ends the whole VMM or nothing of it: half of its threads is no use to anybody.
  return set("memory.oom.group",
             limits.memory_max_bytes ? std::optional<uint64_t>(1) : std::nullopt);
}

Result<UniqueFd> Cgroups::OpenDirectory(const std::string& name) const {
  return OpenFile(PathOf(name), O_RDONLY | O_DIRECTORY);
}

Result<std::vector<pid_t>> Cgroups::Processes(const std::string& name) const {
  auto text = ReadFile(PathOf(name) + "/cgroup.procs", kLargestControlFile);
  std::vector<pid_t> pids;
  if (!text) {
    // ENODEV: the group was removed after the file had been opened.
    if (text.error().code() == ErrorCode::kNotFound || text.error().errnum() == ENODEV) return pids;
    return Fail(text.error());
  }
  std::istringstream numbers(*text);
  for (pid_t pid = 0; numbers >> pid;) pids.push_back(pid);
  return pids;
}

Result<> Cgroups::Kill(const std::string& name) const {
  auto killed = WriteKernelFile(PathOf(name) + "/cgroup.kill", "1");
  if (killed || (killed.error().code() == ErrorCode::kNotFound && !Exists(name))) return {};
  if (killed.error().code() != ErrorCode::kNotFound)
    return Fail(killed.error().Wrap("kill cgroup " + name));
  // Before Linux 5.14. A process that forks meanwhile is caught by the caller's next look.
  DORMOUSE_ASSIGN(const auto pids, Processes(name));
  for (const pid_t pid : pids) {
    if (::kill(pid, SIGKILL) != 0 && errno != ESRCH)
      return FailErrno("kill " + std::to_string(pid));
  }
  return {};
}

Result<> Cgroups::WaitEmpty(const std::string& name, std::chrono::milliseconds timeout) const {
  const std::string what = "wait for cgroup " + name;
  auto events = OpenFile(PathOf(name) + "/cgroup.events", O_RDONLY);
  if (!events) {
    if (events.error().code() == ErrorCode::kNotFound) return {};
    return Fail(events.error().Wrap(what));
  }
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    auto populated = IsPopulated(events->get());
    if (!populated) {
      if (populated.error().errnum() == ENODEV) return {};
      return Fail(populated.error().Wrap(what));
    }
    if (!*populated) return {};
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0) return Fail(ErrorCode::kDeadline, what + ": processes are left in it");
    // kernfs raises POLLPRI when the file's content has changed since it was read.
    pollfd poll_entry{events->get(), POLLPRI, 0};
    if (::poll(&poll_entry, 1, static_cast<int>(left.count())) < 0 && errno != EINTR)
      return FailErrno(what);
  }
}

Result<> Cgroups::Remove(const std::string& name) const {
  if (::rmdir(PathOf(name).c_str()) == 0 || errno == ENOENT) return {};
  return FailErrno("remove cgroup " + name);
}

Result<std::vector<std::string>> Cgroups::List() const {
  const std::string slice = config_.mount_point + "/" + config_.slice;
  DORMOUSE_ASSIGN(auto names, ListDirectory(slice));
  std::erase_if(names, [&](const std::string& name) {
    struct stat status {};
    return ::stat((slice + "/" + name).c_str(), &status) != 0 || !S_ISDIR(status.st_mode);
  });
  return names;
}

}  // namespace dormouse::host
