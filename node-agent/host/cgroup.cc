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
constexpr size_t kLargestThreadStat = 4096;
constexpr int kFreezePollMs = 1;

struct Controller {
  const char* name;
  bool optional = false;
};
constexpr Controller kControllers[] = {{"memory"}, {"pids"}, {"cpu"}, {"io", /*optional=*/true}};
constexpr uint64_t kCpuPeriodUs = 100'000;  // the kernel's own default

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
  for (const auto& [name, optional] : kControllers) {
    const std::string controller = name;
    const bool needed = required && !optional;
    if (!HasWord(available, controller)) {
      if (!needed) continue;
      return Fail(ErrorCode::kUnsupported,
                  "cgroup " + directory + " has no " + controller + " controller");
    }
    auto enabled = WriteKernelFile(directory + "/cgroup.subtree_control", "+" + controller);
    if (!enabled && needed)
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

// Whether no thread of a group that is being frozen runs. None of them can run again before it is
// thawed:
// 1. to freeze a group, the kernel gives each of its threads a pending signal and wakes it;
// 2. with that, a thread can sleep (S) nowhere but in the freezer;
// 3. D is no such sleep, but a wait in the kernel, and ends.
// The kernel's own threads do not count. Before Linux 6.13 KVM keeps one in the group of whoever
// made a VM (kvm-nx-lpage-recovery). It never freezes, so cgroup.events never says "frozen 1".
bool AllSleep(const std::string& threads) {
  constexpr uint64_t kKernelThread = 0x200000;  // PF_KTHREAD
  std::istringstream numbers(threads);
  for (pid_t thread = 0; numbers >> thread;) {
    const auto stat = ReadFile("/proc/" + std::to_string(thread) + "/stat", kLargestThreadStat);
    if (!stat) continue;  // it has ended
    // proc(5): the name, in parentheses, may hold anything; then state, five numbers, and flags.
    std::istringstream fields(stat->substr(stat->rfind(')') + 1));
    char state = 0;
    uint64_t flags = 0;
    std::string skipped;
    fields >> state;
    for (int field = 0; field < 5; ++field) fields >> skipped;
    fields >> flags;
    if ((flags & kKernelThread) == 0 && (state == 'R' || state == 'D')) return false;
  }
  return true;
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
  const auto set = [&](const char* file, const std::optional<uint64_t>& value,
                       const std::string& suffix = "", bool optional = false) -> Result<> {
    const std::string target = path + "/" + file;
    optional = optional || !config_.require_controllers;
    if (!value || (optional && !PathExists(target))) return {};
    return WriteKernelFile(target, std::to_string(*value) + suffix);
  };
  const std::optional<uint64_t> quota =
      limits.cpu_max ? std::optional(*limits.cpu_max * kCpuPeriodUs) : std::nullopt;
  DORMOUSE_TRY(set("memory.max", limits.memory_max_bytes));
  DORMOUSE_TRY(set("pids.max", limits.pids_max));
  DORMOUSE_TRY(set("cpu.max", quota, " " + std::to_string(kCpuPeriodUs)));
  DORMOUSE_TRY(set("cpu.weight", limits.weight));
  // Only kernels with blk-iocost have it.
  DORMOUSE_TRY(set("io.weight", limits.weight, "", /*optional=*/true));
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

Result<> Cgroups::Freeze(const std::string& name, std::chrono::milliseconds timeout) const {
  const std::string path = PathOf(name);
  DORMOUSE_TRY(WriteKernelFile(path + "/cgroup.freeze", "1"));
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    auto threads = ReadFile(path + "/cgroup.threads", kLargestControlFile);
    if (threads && AllSleep(*threads)) return {};
    if (!threads || std::chrono::steady_clock::now() > deadline) {
      (void)Thaw(name);
      return threads ? Fail(ErrorCode::kDeadline, "freeze cgroup " + name + ": it runs on")
                     : Fail(threads.error().Wrap("freeze cgroup " + name));
    }
    ::poll(nullptr, 0, kFreezePollMs);
  }
}

Result<> Cgroups::Thaw(const std::string& name) const {
  auto thawed = WriteKernelFile(PathOf(name) + "/cgroup.freeze", "0");
  return thawed || thawed.error().code() == ErrorCode::kNotFound ? Result<>() : thawed;
}

bool Cgroups::IsFrozen(const std::string& name) const {
  const auto text = ReadFile(PathOf(name) + "/cgroup.freeze", kLargestControlFile);
  return text && text->starts_with('1');
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
