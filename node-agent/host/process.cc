#include "node-agent/host/process.h"

#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>

#include "src/common/base/files.h"

namespace dormouse::host {
namespace {

constexpr size_t kLargestStat = 4096;

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

Result<ProcessIdentity> IdentityOf(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const auto gone = [&] {
    return Fail(ErrorCode::kNotFound, "process " + std::to_string(pid) + " has exited");
  };
  auto line = ReadFile(path, kLargestStat);
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

Result<Process> Process::Open(const ProcessIdentity& identity) {
  const std::string what = "process " + std::to_string(identity.pid);
  if (identity.pid <= 0) return Fail(ErrorCode::kNotFound, "no process is recorded");
  UniqueFd pidfd(PidfdOpen(identity.pid));
  if (!pidfd) {
    if (errno == ESRCH) return Fail(ErrorCode::kNotFound, what + " has exited");
    return FailErrno("pidfd_open " + std::to_string(identity.pid));
  }
  // Looked at after the pidfd holds it: what is read now is of the process that is held.
  DORMOUSE_ASSIGN(const ProcessIdentity now, IdentityOf(identity.pid));
  if (now != identity) return Fail(ErrorCode::kNotFound, what + " is another one by now");
  return Process(identity, std::move(pidfd));
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
