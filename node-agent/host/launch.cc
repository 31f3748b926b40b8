#include "node-agent/host/launch.h"

#include <elf.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "node-agent/host/sparse_files.h"
#include "node-agent/launch/spec.h"
#include "src/common/base/files.h"

namespace dormouse::host {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr DeviceNumber kKvm{10, 232};  // KVM_MINOR
constexpr DeviceNumber kTun{10, 200};  // TUN_MINOR
// Above every number that the launcher's files get, so that dup2() never lands on one still needed.
constexpr int kParkingFd = 64;

Result<std::string> SpecText(const LauncherConfig& config, const LaunchSpec& spec,
                             bool host_mounts) {
  launch::Spec wire;
  wire.command = spec.command;
  wire.uid = spec.uid;
  wire.gid = spec.gid;
  wire.mount_point = config.mount_point;
  for (const auto& bind : spec.binds) {
    wire.binds.push_back({bind.host_path, bind.inner_path, bind.writable, bind.executable});
  }
  for (const auto& device : spec.devices) {
    wire.devices.push_back(
        {device.inner_path, device.number.major, device.number.minor, device.block});
  }
  wire.devices.push_back({"/dev/kvm", kKvm.major, kKvm.minor, false});
  wire.devices.push_back({"/dev/net/tun", kTun.major, kTun.minor, false});
  wire.system_libraries = spec.system_libraries;
  wire.host_mounts = host_mounts;
  wire.max_open_files = spec.max_open_files;
  wire.max_file_bytes = spec.max_file_bytes;
  wire.oom_score_adjust = spec.oom_score_adjust;
  std::string text;
  std::string error;
  if (!launch::FormatSpec(wire, &text, &error)) return Fail(ErrorCode::kInvalid, error);
  return text;
}

Result<UniqueFd> MemoryFile(const std::string& text) {
  UniqueFd file(::memfd_create("launch-spec", MFD_CLOEXEC));
  if (!file) return FailErrno("memfd_create");
  DORMOUSE_TRY(WriteAll(file.get(), text));
  return file;
}

// The files of the launcher, at the numbers that it expects.
class SpawnFiles {
 public:
  SpawnFiles() { ::posix_spawn_file_actions_init(&actions_); }
  ~SpawnFiles() { ::posix_spawn_file_actions_destroy(&actions_); }
  SpawnFiles(const SpawnFiles&) = delete;
  SpawnFiles& operator=(const SpawnFiles&) = delete;

  Result<> Give(int fd, int number) {
    UniqueFd parked(::fcntl(fd, F_DUPFD_CLOEXEC, kParkingFd));
    if (!parked) return FailErrno("duplicate a file for the launcher");
    ::posix_spawn_file_actions_adddup2(&actions_, parked.get(), number);
    parked_.push_back(std::move(parked));
    return {};
  }
  void CloseFrom(int number) { ::posix_spawn_file_actions_addclosefrom_np(&actions_, number); }
  [[nodiscard]] const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_{};
  std::vector<UniqueFd> parked_;
};

Result<pid_t> Spawn(const std::string& program, const SpawnFiles& files) {
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  sigset_t all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string name = "dormouse-launch";
  char* const arguments[] = {name.data(), nullptr};
  char* const environment[] = {nullptr};
  pid_t pid = -1;
  const int error =
      ::posix_spawn(&pid, program.c_str(), files.get(), &attributes, arguments, environment);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return FailErrno("execute " + program, error);
  return pid;
}

// Our own child; killed and reaped, whatever happens.
class Launcher {
 public:
  explicit Launcher(pid_t pid) : pid_(pid) {}
  ~Launcher() {
    ::kill(pid_, SIGKILL);  // a zombie by now unless it is stuck
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

 private:
  const pid_t pid_;
};

struct Message {
  std::string text;  ///< empty = end of file
  UniqueFd pidfd;
};

Result<Message> Receive(int control, steady_clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now()).count();
    pollfd entry{control, POLLIN, 0};
    const int ready = left <= 0 ? 0 : ::poll(&entry, 1, static_cast<int>(left));
    if (ready == 0)
      return Fail(ErrorCode::kDeadline, "the launcher did not come to an end in time");
    if (ready < 0 && errno != EINTR) return FailErrno("poll");
    if (ready < 0) continue;
    char text[launch::kLargestMessage];
    iovec part{text, sizeof(text)};
    alignas(cmsghdr) char ancillary[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = ancillary;
    header.msg_controllen = sizeof(ancillary);
    const ssize_t got = ::recvmsg(control, &header, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno("hear from the launcher");
    Message message;
    message.text.assign(text, static_cast<size_t>(got));
    const cmsghdr* attached = CMSG_FIRSTHDR(&header);
    if (attached != nullptr && attached->cmsg_level == SOL_SOCKET &&
        attached->cmsg_type == SCM_RIGHTS) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(attached), sizeof(fd));
      message.pidfd = UniqueFd(fd);
    }
    return message;
  }
}

Result<LaunchedProcess> Follow(int control, milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  pid_t pid = 0;
  UniqueFd pidfd;
  const auto run = [&]() -> Result<ProcessIdentity> {
    for (;;) {
      DORMOUSE_ASSIGN(Message message, Receive(control, deadline));
      if (message.text.empty()) break;
      const char* end = message.text.data() + message.text.size();
      if (message.text[0] == launch::kMessageError)
        return Fail(ErrorCode::kInternal, message.text.substr(1));
      if (message.text[0] == launch::kMessageProcess && message.pidfd &&
          std::from_chars(message.text.data() + 1, end, pid).ptr == end) {
        pidfd = std::move(message.pidfd);
      } else {
        return Fail(ErrorCode::kInternal, "the launcher is of another version");
      }
    }
    if (!pidfd) return Fail(ErrorCode::kInternal, "the launcher ended without a word");
    auto identity = IdentityOf(pid);
    if (!identity) return Fail(ErrorCode::kInternal, "the VMM ended at once");
    return identity;
  };
  auto identity = run();
  if (identity) return LaunchedProcess{*std::move(identity), std::move(pidfd)};
  if (pidfd) (void)::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0);
  return Fail(identity.error());
}

}  // namespace

Result<LaunchedProcess> Launch(const HostNamespaces& host, const LauncherConfig& config,
                               const LaunchSpec& spec) {
  const auto launch = [&]() -> Result<LaunchedProcess> {
    const bool host_mounts = host.mount_namespace() >= 0;
    DORMOUSE_ASSIGN(const std::string text, SpecText(config, spec, host_mounts));
    DORMOUSE_ASSIGN(const UniqueFd spec_file, MemoryFile(text));
    DORMOUSE_ASSIGN(const UniqueFd null, OpenFile("/dev/null", O_RDWR));
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
      return FailErrno("socketpair");
    const UniqueFd ours(pair[0]);
    UniqueFd theirs(pair[1]);
    DORMOUSE_ASSIGN(const pid_t pid, [&]() -> Result<pid_t> {
      SpawnFiles files;
      const int log = spec.log >= 0 ? spec.log : null.get();
      DORMOUSE_TRY(files.Give(null.get(), 0));
      DORMOUSE_TRY(files.Give(log, 1));
      DORMOUSE_TRY(files.Give(log, 2));
      DORMOUSE_TRY(files.Give(theirs.get(), launch::kControlFd));
      DORMOUSE_TRY(files.Give(spec_file.get(), launch::kSpecFd));
      DORMOUSE_TRY(files.Give(spec.cgroup, launch::kCgroupFd));
      DORMOUSE_TRY(files.Give(spec.netns, launch::kNetNsFd));
      if (host_mounts) DORMOUSE_TRY(files.Give(host.mount_namespace(), launch::kHostMountsFd));
      files.CloseFrom(host_mounts ? launch::kHostMountsFd + 1 : launch::kHostMountsFd);
      return Spawn(config.program, files);
    }());
    const Launcher launcher(pid);
    // End of file on `ours` means that the VMM runs: no copy of the other end may stay with us.
    theirs.Reset();
    return Follow(ours.get(), config.timeout);
  };
  auto launched = launch();
  if (!launched) return Fail(launched.error().Wrap("launch " + spec.name));
  return launched;
}

Result<bool> IsDynamicallyLinked(const std::string& program) {
  DORMOUSE_ASSIGN(const UniqueFd file, OpenFile(program, O_RDONLY));
  Elf64_Ehdr header{};
  if (::pread(file.get(), &header, sizeof(header), 0) != static_cast<ssize_t>(sizeof(header)) ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_phentsize != sizeof(Elf64_Phdr)) {
    return Fail(ErrorCode::kInvalid, program + " is no 64-bit ELF program");
  }
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  const size_t bytes = segments.size() * sizeof(Elf64_Phdr);
  if (::pread(file.get(), segments.data(), bytes, static_cast<off_t>(header.e_phoff)) !=
      static_cast<ssize_t>(bytes)) {
    return Fail(ErrorCode::kInvalid, program + " is cut off");
  }
  return std::any_of(segments.begin(), segments.end(),
                     [](const Elf64_Phdr& segment) { return segment.p_type == PT_INTERP; });
}

}  // namespace dormouse::host
