#include "node-agent/host/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>

#include "src/common/base/files.h"

namespace dormouse::host {
namespace {

constexpr size_t kLargestProcFile = 64 << 10;

// PIDFD_GET_INFO of Linux 6.13, in the size that it has since 6.15, with PIDFD_INFO_EXIT:
// include/uapi/linux/pidfd.h. The C library's headers are older.
struct PidfdInfo {
  uint64_t mask = 0;  // what is asked for, and then what was answered
  uint64_t cgroup_id = 0;
  uint32_t ids[11] = {};
  int32_t exit_code = 0;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr unsigned long kPidfdGetInfo = _IOWR(0xFF, 11, PidfdInfo);
constexpr uint64_t kPidfdInfoExit = 1 << 3;

int PidfdOpen(pid_t pid) {
  return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
}

}  // namespace

Result<std::string> BootId() {
  DORMOUSE_ASSIGN(std::string id, ReadFile("/proc/sys/kernel/random/boot_id", 64));
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id;
}

Result<ProcessStat> ParseProcessStat(const std::string& line) {
  // The name, field 2, is in parentheses and may itself hold any, spaces too: the last ")" ends it.
  const auto name_end = line.rfind(')');
  const auto bad = [] { return Fail(ErrorCode::kInvalid, "/proc/<pid>/stat is not understood"); };
  if (name_end == std::string::npos || name_end + 2 >= line.size()) return bad();
  ProcessStat stat;
  stat.state = line[name_end + 2];
  size_t at = name_end + 2;
  for (int field = 3; field < 22; ++field) {
    at = line.find(' ', at);
    if (at == std::string::npos) return bad();
    ++at;
  }
  const auto [end, error] =
      std::from_chars(line.data() + at, line.data() + line.size(), stat.start_time);
  if (error != std::errc()) return bad();
  return stat;
}

namespace {

// Of the process whose directory in /proc that is.
Result<ProcessIdentity> IdentityIn(const std::string& directory, pid_t pid) {
  const auto gone = [&] {
    return Fail(ErrorCode::kNotFound, "process " + std::to_string(pid) + " has exited");
  };
  auto line = ReadFile(directory + "/stat", kLargestProcFile);
  if (!line) {
    // ESRCH: it went between open() and read().
    if (line.error().code() == ErrorCode::kNotFound || line.error().errnum() == ESRCH)
      return gone();
    return Fail(line.error());
  }
  DORMOUSE_ASSIGN(const ProcessStat stat, ParseProcessStat(*line));
  if (stat.state == 'Z' || stat.state == 'X') return gone();
  DORMOUSE_ASSIGN(std::string boot_id, BootId());
  return ProcessIdentity{pid, stat.start_time, std::move(boot_id)};
}

Result<> CheckCgroup(const std::string& directory, const Jail& jail) {
  DORMOUSE_ASSIGN(const std::string text, ReadFile(directory + "/cgroup", kLargestProcFile));
  const std::string_view group = CgroupIn(text);
  // Seen from below the node's root, as in some containers, the way to it begins with "../".
  const bool inside =
      group == jail.cgroup || (!jail.cgroup.empty() && group.ends_with("/" + jail.cgroup));
  if (inside) return {};
  return Fail(ErrorCode::kPermission,
              "is in cgroup '" + std::string(group) + "', not in '" + jail.cgroup + "'");
}

}  // namespace

std::string_view CgroupIn(std::string_view text) {
  constexpr std::string_view kUnified = "0::/";
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (line.starts_with(kUnified)) return line.substr(kUnified.size());
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return {};
}

Result<ProcessIdentity> IdentityOf(pid_t pid) {
  return IdentityIn("/proc/" + std::to_string(pid), pid);
}

Result<> CheckJail(pid_t pid, uid_t uid, const Jail& jail) {
  if (uid != jail.uid) {
    return Fail(ErrorCode::kPermission,
                "has uid " + std::to_string(uid) + ", not " + std::to_string(jail.uid));
  }
  auto inside = CheckCgroup("/proc/" + std::to_string(pid), jail);
  if (!inside) return Fail(inside.error().WithCode(ErrorCode::kPermission));
  return {};
}

Result<Process> Process::Open(const ProcessIdentity& identity, const Jail& jail) {
  const std::string what = "process " + std::to_string(identity.pid);
  if (identity.pid <= 0) return Fail(ErrorCode::kNotFound, "no process is recorded");
  UniqueFd pidfd(PidfdOpen(identity.pid));
  if (!pidfd) {
    if (errno == ESRCH) return Fail(ErrorCode::kNotFound, what + " has exited");
    return FailErrno("pidfd_open " + std::to_string(identity.pid));
  }
  const std::string proc = "/proc/" + std::to_string(identity.pid);
  UniqueFd directory(::open(proc.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return FailErrno("open " + proc);
  Process process(identity, std::move(pidfd), std::move(directory));
  // Looked at after both were opened: what is read now is of the process that the directory is of,
  // and as long as the pidfd's lives the number is given to no other.
  const std::string held = process.ProcFile(".");
  DORMOUSE_ASSIGN(const ProcessIdentity now, IdentityIn(held, identity.pid));
  if (now != identity) return Fail(ErrorCode::kNotFound, what + " is another one by now");
  if (auto inside = CheckCgroup(held, jail); !inside) return Fail(inside.error().Wrap(what));
  if (process.HasExited()) return Fail(ErrorCode::kNotFound, what + " has exited");
  return process;
}

std::string Process::ProcFile(const std::string& name) const {
  return "/proc/self/fd/" + std::to_string(directory_.get()) + "/" + name;
}

// process_vm_readv(2) copies once where a read of /proc/<pid>/mem copies twice, but it takes a
// number. That is this process's for as long as it has not exited and was reaped. So: whatever was
// read before a look at the pidfd that finds it alive is this process's.
Result<> Process::ReadMemory(uint64_t address, char* into, size_t size) const {
  const auto gone = [] {
    return Fail(ErrorCode::kUnavailable, "read memory: the process is gone");
  };
  for (size_t done = 0; done < size;) {
    const iovec ours{into + done, size - done};
    const iovec theirs{reinterpret_cast<void*>(address + done), size - done};  // NOLINT: its own
    const ssize_t got = ::process_vm_readv(identity_.pid, &ours, 1, &theirs, 1, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == ESRCH) return gone();
    if (got < 0) return FailErrno("read memory");
    done += static_cast<size_t>(got);
  }
  return HasExited() ? gone() : Result<>();
}

std::optional<int> ExitStatusOf(int pidfd) {
  PidfdInfo info;
  info.mask = kPidfdInfoExit;
  if (::ioctl(pidfd, kPidfdGetInfo, &info) != 0 || (info.mask & kPidfdInfoExit) == 0)
    return std::nullopt;
  return info.exit_code;
}

bool Process::HasExited() const {
  pollfd poll_entry{pidfd_.get(), POLLIN, 0};
  return ::poll(&poll_entry, 1, 0) > 0;
}

Result<> Process::Signal(int signal) const {
  if (::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0) == 0 || errno == ESRCH)
    return {};
  return FailErrno("signal " + std::to_string(signal) + " to process " +
                   std::to_string(identity_.pid));
}

Result<> Process::WaitExit(std::chrono::milliseconds timeout) const {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd poll_entry{pidfd_.get(), POLLIN, 0};
    const int ready =
        ::poll(&poll_entry, 1, static_cast<int>(std::max<long long>(0, left.count())));
    if (ready > 0) return {};
    if (ready == 0) {
      return Fail(ErrorCode::kDeadline, "process " + std::to_string(identity_.pid) +
                                            " lives on after " + std::to_string(timeout.count()) +
                                            " ms");
    }
    if (errno != EINTR) return FailErrno("wait for process " + std::to_string(identity_.pid));
  }
}

}  // namespace dormouse::host
