// What a VMM that turned hostile can do: nothing. This program starts itself twice, exactly as the
// agent starts VMMs: a victim that holds a file, a socket, a disk and memory, and an attacker that
// tries to get at them, at the node and at other namespaces, and reports what succeeded. Every
// attempt must fail. What it leaves for the agent to stumble over (another's socket in the place of
// its own, another's process under its number) must not be taken for its own, and what it plants in
// its own directory is refused, bounded and removed.
//
// Needs root, cgroup v2 and /dev/net/tun; skips with the reason otherwise.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>

#include "node-agent/host/beneath.h"
#include "node-agent/host/cgroup.h"
#include "node-agent/host/device_node.h"
#include "node-agent/host/launch.h"
#include "node-agent/host/mounts.h"
#include "node-agent/host/netlink.h"
#include "node-agent/host/netns.h"
#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"
#include "node-agent/host/vmm_socket.h"
#include "src/common/base/unix_socket.h"

namespace dormouse::test {
namespace {

using std::chrono::milliseconds;
using namespace host;  // NOLINT: a test of one room

constexpr uid_t kVictim = 100021;
constexpr uid_t kAttacker = 100022;
constexpr char kSecret[] = "the victim's guest memory";
constexpr uint64_t kThreads = 64;
constexpr uint64_t kOpenFiles = 256;
constexpr uint64_t kLargestFile = 1 << 20;
constexpr char kOwnFile[] = "/run/vm/own";

// Inside: the attacker.

struct Attempt {
  std::string what;
  std::function<bool()> succeeds;
};

bool Opens(const std::string& path, int flags = O_RDONLY) {
  const UniqueFd file(::open(path.c_str(), flags | O_CLOEXEC, 0600));
  return file.valid();
}

// By hand: it has no /proc, as ConnectUnix needs.
bool Connects(const std::string& path) {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
}

bool MakesNode(mode_t type, unsigned major, unsigned minor,
               const std::string& path = "/run/vm/node") {
  const bool made = ::mknod(path.c_str(), type | 0666, ::makedev(major, minor)) == 0;
  ::unlink(path.c_str());
  return made;
}

bool AttachesTap(const char* name) {
  const UniqueFd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request{};
  std::snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  return ::ioctl(tun.get(), TUNSETIFF, &request) == 0;
}

bool ReadsMemoryOf(pid_t pid, uint64_t address) {
  char there[sizeof(kSecret)] = {};
  const iovec local{there, sizeof(there)};
  const iovec remote{reinterpret_cast<void*>(address), sizeof(there)};
  return ::process_vm_readv(pid, &local, 1, &remote, 1, 0) > 0;
}

// Whether that lets it have a name that was not there before.
bool MakesName(const std::function<int(const char*)>& make) {
  constexpr char kName[] = "/run/vm/name";
  const bool made = make(kName) == 0;
  ::unlink(kName);
  ::rmdir(kName);
  return made;
}

// By each way that a file can grow.
bool WritesBeyondItsLimit() {
  ::signal(SIGXFSZ, SIG_IGN);
  const UniqueFd file(::open(kOwnFile, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  const auto end = static_cast<off_t>(kLargestFile);
  const bool within = ::pwrite(file.get(), "x", 1, end - 1) == 1;
  return !within || ::pwrite(file.get(), "x", 1, end) == 1 ||
         ::ftruncate(file.get(), end + 1) == 0 || ::fallocate(file.get(), 0, 0, end + 1) == 0;
}

bool OpensMoreThan(uint64_t most) {
  std::vector<UniqueFd> files;
  while (files.size() <= most) {
    files.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (!files.back()) return false;
  }
  return true;
}

// Processes count as threads do.
bool RunsMoreThan(uint64_t most) {
  std::vector<pid_t> children;
  while (children.size() <= most) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (;;) ::pause();
    }
    if (child < 0) break;
    children.push_back(child);
  }
  for (const pid_t child : children) {
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
  }
  return children.size() > most;
}

bool UsesIoUring() {
  char parameters[256] = {};
  if (::syscall(SYS_io_uring_setup, 1, parameters) >= 0 || errno != EPERM) return true;
  if (::syscall(SYS_io_uring_enter, 0, 0, 0, 0, nullptr, 0) >= 0 || errno != EPERM) return true;
  return ::syscall(SYS_io_uring_register, 0, 0, nullptr, 0) >= 0 || errno != EPERM;
}

bool SetsLinkUp() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM, 0));
  ifreq request{};
  std::snprintf(request.ifr_name, sizeof(request.ifr_name), "lo");
  request.ifr_flags = IFF_UP;
  return ::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0;
}

std::vector<Attempt> Attempts(const std::string& victim_directory, pid_t victim,
                              uint64_t secret_address, const std::string& disk_major,
                              const std::string& disk_minor, bool counted) {
  const std::string proc = "/proc/" + std::to_string(victim);
  const auto major = static_cast<unsigned>(std::atoi(disk_major.c_str()));
  const auto minor = static_cast<unsigned>(std::atoi(disk_minor.c_str()));
  return {
      {"find a descriptor that was left open",
       [] {
         for (int fd = 3; fd < 4096; ++fd) {
           if (::fcntl(fd, F_GETFD) >= 0) return true;
         }
         return false;
       }},
      {"open the victim's file", [=] { return Opens(victim_directory + "/secret"); }},
      {"list the victim's directory",
       [=] { return Opens(victim_directory, O_RDONLY | O_DIRECTORY); }},
      {"connect to the victim's socket", [=] { return Connects(victim_directory + "/api.sock"); }},
      {"open the victim's memory", [=] { return Opens(proc + "/mem", O_RDWR); }},
      {"see /proc", [] { return Opens("/proc/self/status"); }},
      {"mount /proc", [] { return ::mount("proc", "/run/vm", "proc", 0, nullptr) == 0; }},
      {"read the victim's memory", [=] { return ReadsMemoryOf(victim, secret_address); }},
      {"ptrace the victim", [=] { return ::ptrace(PTRACE_SEIZE, victim, nullptr, nullptr) == 0; }},
      {"signal the victim", [=] { return ::kill(victim, 0) == 0; }},
      {"signal init", [] { return ::kill(1, 0) == 0; }},
      {"take the victim's descriptors",
       [=] {
         const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, victim, 0)));
         return ::syscall(SYS_pidfd_getfd, pidfd.get(), 0, 0) >= 0;
       }},
      {"join the victim's namespaces",
       [=] {
         const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, victim, 0)));
         return ::setns(pidfd.get(), CLONE_NEWNET) == 0 || ::setns(pidfd.get(), CLONE_NEWNS) == 0;
       }},
      {"make the victim's disk", [=] { return MakesNode(S_IFBLK, major, minor); }},
      {"make /dev/mem", [] { return MakesNode(S_IFCHR, 1, 1); }},
      {"make the dm control node", [] { return MakesNode(S_IFCHR, 10, 236); }},
      {"open /dev/mem", [] { return Opens("/dev/mem"); }},
      {"open a loop device", [] { return Opens("/dev/loop0") || Opens("/dev/loop-control"); }},
      {"open the dm control node", [] { return Opens("/dev/mapper/control"); }},
      {"mount a tmpfs", [] { return ::mount("tmpfs", "/run/vm", "tmpfs", 0, nullptr) == 0; }},
      {"make its root writable",
       [] { return ::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND, nullptr) == 0; }},
      {"unmount its root", [] { return ::umount2("/", MNT_DETACH) == 0; }},
      {"write to its root", [] { return Opens("/x", O_WRONLY | O_CREAT); }},
      {"write to its kernel", [] { return Opens("/vmm/program", O_WRONLY); }},
      {"open a device in its own directory", [] { return Opens("/run/vm/planted"); }},
      {"write to its memory's file", [] { return Opens("/vmm/memory", O_RDWR); }},
      {"make its memory's file writable", [] { return ::chmod("/vmm/memory", 0666) == 0; }},
      {"link its memory's file", [] { return ::link("/vmm/memory", "/run/vm/memory") == 0; }},
      {"write to the drop outside a capture", [] { return Opens("/drop/x", O_WRONLY | O_CREAT); }},
      {"use io_uring", [] { return UsesIoUring(); }},
      {"write a file beyond its limit", [] { return WritesBeyondItsLimit(); }},
      {"open files beyond its limit", [] { return OpensMoreThan(kOpenFiles); }},
      {"run threads beyond its limit", [=] { return counted && RunsMoreThan(kThreads); }},
      {"make a symbolic link",
       [] {
         return MakesName([](const char* name) { return ::symlink("/", name); }) ||
                MakesName([](const char* name) { return ::symlinkat("/", AT_FDCWD, name); });
       }},
      {"link a file of its own",
       [] {
         const UniqueFd file(::open("/run/vm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
         return MakesName([](const char* name) { return ::link(kOwnFile, name); }) ||
                MakesName([&](const char* name) {
                  return ::linkat(file.get(), "", AT_FDCWD, name, AT_EMPTY_PATH);
                });
       }},
      {"make a pipe or a file by mknod",
       [] {
         return MakesName([](const char* name) { return ::mkfifo(name, 0600); }) ||
                MakesName([](const char* name) { return ::mknod(name, S_IFREG | 0600, 0); }) ||
                MakesName(
                    [](const char* name) { return ::mknodat(AT_FDCWD, name, S_IFSOCK | 0600, 0); });
       }},
      {"make a directory",
       [] {
         return MakesName([](const char* name) { return ::mkdir(name, 0700); }) ||
                MakesName([](const char* name) { return ::mkdirat(AT_FDCWD, name, 0700); });
       }},
      {"rename a file of its own",
       [] {
         return MakesName([](const char* name) { return ::rename(kOwnFile, name); }) ||
                MakesName([](const char* name) {
                  return ::renameat(AT_FDCWD, kOwnFile, AT_FDCWD, name);
                }) ||
                MakesName([](const char* name) {
                  return static_cast<int>(
                      ::syscall(SYS_renameat2, AT_FDCWD, kOwnFile, AT_FDCWD, name, 0));
                });
       }},
      {"leave its root", [] { return ::chroot("/run/vm") == 0; }},
      {"become root", [] { return ::setuid(0) == 0 || ::setgid(0) == 0 || ::geteuid() == 0; }},
      {"become the victim", [] { return ::setuid(kVictim) == 0; }},
      {"unshare a mount namespace", [] { return ::unshare(CLONE_NEWNS) == 0; }},
      {"unshare a network namespace", [] { return ::unshare(CLONE_NEWNET) == 0; }},
      {"gain capabilities in a user namespace", [] { return ::unshare(CLONE_NEWUSER) == 0; }},
      {"fork into a user namespace",
       [] {
         const long child =
             ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
         if (child == 0) ::_exit(0);
         return child > 0;
       }},
      {"make another tap", [] { return AttachesTap("tap9"); }},
      {"open a raw socket",
       [] { return UniqueFd(::socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)).valid(); }},
      {"open a packet socket", [] { return UniqueFd(::socket(AF_PACKET, SOCK_RAW, 0)).valid(); }},
      {"change a link", [] { return SetsLinkUp(); }},
      {"set the clock",
       [] {
         timespec now{0, 0};
         return ::clock_settime(CLOCK_REALTIME, &now) == 0;
       }},
      {"set the host name", [] { return ::sethostname("x", 1) == 0; }},
      {"load a kernel module",
       [] { return ::syscall(SYS_init_module, nullptr, 0, "") == 0 || errno != EPERM; }},
      {"reboot", [] { return ::reboot(RB_DISABLE_CAD) == 0; }},
      {"raise its limits",
       [] {
         rlimit limit{RLIM_INFINITY, RLIM_INFINITY};
         return ::setrlimit(RLIMIT_CORE, &limit) == 0 || ::setrlimit(RLIMIT_NOFILE, &limit) == 0 ||
                ::setrlimit(RLIMIT_FSIZE, &limit) == 0;
       }},
  };
}

// What is its own must open, or the attempts that turn on it fail for the wrong reason.
bool HasItsOwn() {
  return Opens("/vmm/memory") && ::access("/drop", F_OK) == 0 &&
         ::access("/run/vm/planted", F_OK) == 0;
}

int Attack(char** arguments) {
  static char buffer[64 << 10];
  std::setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
  const auto attempts =
      Attempts(arguments[0], std::atoi(arguments[1]), std::strtoull(arguments[2], nullptr, 16),
               arguments[3], arguments[4], arguments[5] == std::string("counted"));
  if (!HasItsOwn()) return 1;
  for (const auto& attempt : attempts) {
    std::printf("%s: %s\n", attempt.succeeds() ? "SUCCEEDED" : "failed", attempt.what.c_str());
  }
  std::printf("done %zu\n", attempts.size());
  std::fflush(stdout);
  return 0;
}

// Inside: one that plants traps in its own directory.

constexpr const char* kTraps[] = {"link", "magic", "fifo", "deep", "terabyte", "growing", "leased"};
constexpr uint64_t kOwnBytes = 8 << 20;
constexpr uint64_t kOwnNames = 256;
constexpr uint64_t kMostRead = 1 << 20;

// With the VMM's uid and in its directory, but not from within its walls: those refuse it most of
// these names. The agent must not rely on that.
int PlantTraps(const char* own_directory, const char* victim_directory) {
  if (::chdir(own_directory) != 0 || ::setgroups(0, nullptr) != 0 ||
      ::setresgid(kAttacker, kAttacker, kAttacker) != 0 ||
      ::setresuid(kAttacker, kAttacker, kAttacker) != 0) {
    return 1;
  }
  (void)::symlink((std::string(victim_directory) + "/secret").c_str(), "link");
  (void)::symlink("/proc/self/fd/0", "magic");
  (void)::mkfifo("fifo", 0666);
  const int terabyte = ::open("terabyte", O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  (void)!::ftruncate(terabyte, off_t{1} << 40);
  const int leased = ::open("leased", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  (void)!::write(leased, "x", 1);
  (void)::fcntl(leased, F_SETLEASE, F_WRLCK);
  // All bytes, then all names: wide, long and deep.
  const int growing = ::open("growing", O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  static char block[64 << 10];
  uint64_t bytes = 0;
  for (ssize_t put = 0; (put = ::write(growing, block, sizeof(block))) > 0;)
    bytes += static_cast<uint64_t>(put);
  uint64_t names = 0;
  const std::string stem(250, 'n');
  for (; names < 64 && ::mkdir((stem + std::to_string(names)).c_str(), 0700) == 0; ++names) {
  }
  int inside = ::mkdir("deep", 0700) == 0 ? ::open("deep", O_RDONLY | O_DIRECTORY) : -1;
  for (; ::mkdirat(inside, "deep", 0700) == 0; ++names)
    inside = ::openat(inside, "deep", O_RDONLY | O_DIRECTORY);
  std::printf("planted %llu bytes and %llu names\n", static_cast<unsigned long long>(bytes),
              static_cast<unsigned long long>(names));
  std::fflush(stdout);
  for (;;) ::pause();
}

// Inside: the victim.

int HoldSecrets() {
  static char secret[sizeof(kSecret)];
  std::snprintf(secret, sizeof(secret), "%s", kSecret);
  const int file = ::open("/run/vm/secret", O_WRONLY | O_CREAT, 0600);
  (void)!::write(file, secret, sizeof(secret));
  const auto listener = ListenUnix("/run/vm/api.sock");
  if (!listener) return 1;
  std::printf("%p\n", static_cast<void*>(secret));
  std::fflush(stdout);
  for (;;) ::pause();
}

// Outside: the test.

std::string OwnProgram() {
  char path[4096];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof(path));
  return std::string(path, length > 0 ? static_cast<size_t>(length) : 0);
}

// dormouse-launch: beside the tests of the build, or where the node has it.
std::string LaunchProgram() {
  for (const std::string path : {DORMOUSE_LAUNCH_PROGRAM, "/opt/dormouse/bin/dormouse-launch"}) {
    if (PathExists(path)) return path;
  }
  return "";
}

struct Vm {
  std::string name;
  uid_t uid;
  std::string directory;
  UniqueFd netns;
  UniqueFd cgroup;
  UniqueFd output;  ///< of the pipe that it prints into
  UniqueFd log;
};

class HostileVmmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!IsRoot()) GTEST_SKIP() << "needs root";
    if (!PathExists("/dev/net/tun")) GTEST_SKIP() << "no /dev/net/tun";
    if (LaunchProgram().empty()) GTEST_SKIP() << "no dormouse-launch here";
    for (const std::string mount_point : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
      auto opened = Cgroups::Open({mount_point, "dormouse-test.slice", false});
      if (!opened || cgroups_) continue;
      slice_ = mount_point + "/dormouse-test.slice";
      cgroups_.emplace(*std::move(opened));
    }
    if (!cgroups_) GTEST_SKIP() << "no cgroup2 file system that we may write to";
    host_.emplace(*HostNamespaces::Open("self"));
    ASSERT_OK(MakeDirectories(scratch_ / "root", 0755));
    ASSERT_EQ(::chmod(scratch_.path().c_str(), 0755), 0);
    Prepare(&victim_, "victim", kVictim);
    Prepare(&attacker_, "attacker", kAttacker);
  }
  void TearDown() override {
    for (const Vm* vm : {&victim_, &attacker_}) {
      if (vm->name.empty()) continue;
      EXPECT_OK(cgroups_->Kill(vm->name));
      EXPECT_OK(cgroups_->WaitEmpty(vm->name, milliseconds(10000)));
      EXPECT_OK(cgroups_->Remove(vm->name));
      EXPECT_OK(host_->RunInMounts([&] { return DetachMount(vm->directory); }));
      EXPECT_OK(DeleteNetNs(*host_, scratch_ / (vm->name + ".netns")));
    }
    if (planter_ > 0) ::waitpid(planter_, nullptr, 0);
    ::rmdir(slice_.c_str());
  }
  void Prepare(Vm* vm, const std::string& name, uid_t uid) {
    vm->name = name;
    vm->uid = uid;
    vm->directory = scratch_ / name;
    ASSERT_OK(MakeDirectories(vm->directory, 0700));
    ASSERT_OK(host_->RunInMounts([&] {
      return MountBoundedFiles(vm->directory, {uid, kOwnBytes, kOwnNames});
    }));
    ASSERT_OK(CreateNetNs(*host_, scratch_ / (name + ".netns")));
    ASSERT_OK(cgroups_->Create(name, {256 << 20, kThreads}));
    vm->netns = OpenNetNs(*host_, scratch_ / (name + ".netns")).value();
    vm->cgroup = cgroups_->OpenDirectory(name).value();
    int pipe[2];
    ASSERT_EQ(::pipe2(pipe, O_CLOEXEC | O_NONBLOCK), 0);
    vm->output.Reset(pipe[0]);
    vm->log.Reset(pipe[1]);
    GiveItsOwn(*vm);
    ASSERT_OK(RunInNetNs(vm->netns.get(), [&] { return CreateTap({"tap0", uid, ""}); }));
  }
  // A victim prints it when it is ready.
  static std::string AddressOfSecret(const Vm& victim) {
    std::string printed = OutputOf(victim, milliseconds(20000));
    return printed.substr(0, printed.find('\n'));
  }
  // As LinuxMachine::Launch gives it: the drop, root's outside a capture, and the memory that it is
  // woken from. Beside them, a device that it could not have made itself.
  void GiveItsOwn(const Vm& vm) {
    ASSERT_OK(MakeDirectories(vm.directory + ".drop", 0700));
    ASSERT_OK(MakeDeviceNode(vm.directory + "/planted", NodeKind::kCharacter, {1, 5}, vm.uid));
    const std::string memory = vm.directory + ".memory";
    const UniqueFd file(::open(memory.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0444));
    ASSERT_TRUE(file);
    ASSERT_EQ(::fchmod(file.get(), 0444), 0);
  }
  Result<LaunchedProcess> Start(const Vm& vm, std::vector<std::string> arguments) {
    LaunchSpec spec;
    spec.name = vm.name;
    spec.command = std::move(arguments);
    spec.command.insert(spec.command.begin(), "/vmm/program");
    spec.uid = vm.uid;
    spec.gid = vm.uid;
    spec.binds = {{vm.directory, "/run/vm", true, false},
                  {OwnProgram(), "/vmm/program", false, true}};
    for (const std::string libraries : {"/opt/dormouse/lib"}) {
      if (PathExists(libraries)) spec.binds.push_back({libraries, libraries, false, true});
    }
    spec.binds.push_back({vm.directory + ".memory", "/vmm/memory"});
    spec.binds.push_back({vm.directory + ".drop", "/drop", true, false});
    spec.system_libraries = true;
    spec.cgroup = vm.cgroup.get();
    spec.netns = vm.netns.get();
    spec.log = vm.log.get();
    spec.max_open_files = kOpenFiles;
    spec.max_file_bytes = kLargestFile;
    return Launch(*host_, {LaunchProgram(), scratch_ / "root", milliseconds(20000)}, spec);
  }
  [[nodiscard]] Jail JailOf(const Vm& vm) const {
    return {vm.uid, cgroups_->MembershipOf(vm.name)};
  }
  static ErrorCode ConnectingTo(const VmmSocket& socket) {
    const auto connected = ConnectVmm(socket);
    return connected ? ErrorCode::kInternal : connected.error().code();
  }
  // A node counts a VMM's threads; where its pids controller is elsewhere bound, none does.
  [[nodiscard]] std::string Counted(const Vm& vm) const {
    return PathExists(cgroups_->PathOf(vm.name) + "/pids.max") ? "counted" : "not counted";
  }
  // In its cgroup, whose end is the planter's.
  void StartPlanter(const Vm& vm, const std::string& victim_directory) {
    const std::string program = OwnProgram();
    planter_ = ::fork();
    if (planter_ == 0) {
      ::dup2(vm.log.get(), STDOUT_FILENO);
      ::execl(program.c_str(), program.c_str(), "--as-planter", vm.directory.c_str(),
              victim_directory.c_str(), nullptr);
      ::_exit(1);
    }
    ASSERT_GT(planter_, 0);
    ASSERT_OK(
        WriteKernelFile(cgroups_->PathOf(vm.name) + "/cgroup.procs", std::to_string(planter_)));
  }
  // What it prints at once; a report of 64 KiB fits into the pipe.
  static std::string OutputOf(const Vm& vm, milliseconds timeout) {
    pollfd entry{vm.output.get(), POLLIN, 0};
    if (::poll(&entry, 1, static_cast<int>(timeout.count())) <= 0) return "";
    std::string text(64 << 10, '\0');
    const ssize_t got = ::read(vm.output.get(), text.data(), text.size());
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
  }

  ScratchDirectory scratch_;
  std::string slice_;
  std::optional<Cgroups> cgroups_;
  std::optional<HostNamespaces> host_;
  Vm victim_;
  Vm attacker_;
  pid_t planter_ = -1;
};

TEST_F(HostileVmmTest, ReachesNothingThatIsNotItsOwn) {
  const auto victim = Start(victim_, {"--as-victim"});
  ASSERT_OK(victim);
  const std::string secret_address = AddressOfSecret(victim_);
  ASSERT_TRUE(secret_address.starts_with("0x")) << secret_address;
  const auto attacker =
      Start(attacker_, {"--as-attacker", victim_.directory, std::to_string(victim->identity.pid),
                        secret_address, "253", "0", Counted(attacker_)});
  ASSERT_TRUE(attacker || attacker.error().message().find("ended at once") != std::string::npos)
      << attacker.error().message();
  ASSERT_OK(cgroups_->WaitEmpty(attacker_.name, milliseconds(60000)));
  const std::string report = OutputOf(attacker_, milliseconds(1000));
  EXPECT_THAT(report, ::testing::HasSubstr("\ndone ")) << "it ended before its last attempt";
  EXPECT_THAT(report, ::testing::Not(::testing::HasSubstr("SUCCEEDED"))) << report;
  EXPECT_OK(Process::Open(victim->identity, JailOf(victim_))) << "the victim has not noticed";
}

TEST_F(HostileVmmTest, AnothersSocketInThePlaceOfItsOwnIsNotSpokenTo) {
  ASSERT_OK(Start(victim_, {"--as-victim"}));
  ASSERT_TRUE(AddressOfSecret(victim_).starts_with("0x"));
  const std::string target = victim_.directory + "/api.sock";
  EXPECT_OK(ConnectVmm({target, JailOf(victim_)})) << "the victim answers for itself";

  const std::string planted = attacker_.directory + "/vsock.sock";
  ASSERT_EQ(::symlink(target.c_str(), planted.c_str()), 0);
  ASSERT_TRUE(Connects(planted)) << "who follows the link comes to the victim";
  EXPECT_EQ(ConnectingTo({planted, JailOf(attacker_)}), ErrorCode::kPermission);
  EXPECT_EQ(ConnectingTo({planted, JailOf(victim_)}), ErrorCode::kPermission);

  // No hard link either: each directory is a file system of its own. And if there were one, another
  // one would listen there than the one that is meant.
  ASSERT_OK(RemoveFile(planted));
  ASSERT_NE(::link(target.c_str(), planted.c_str()), 0);
  EXPECT_EQ(ConnectingTo({target, JailOf(attacker_)}), ErrorCode::kPermission) << "by its uid";
  EXPECT_EQ(ConnectingTo({target, {victim_.uid, cgroups_->MembershipOf(attacker_.name)}}),
            ErrorCode::kPermission)
      << "by its cgroup";
}

// A process whose number is chosen, as if it had come round again; it has what this one has.
pid_t StartAs(pid_t number) {
  clone_args how{};
  how.exit_signal = SIGCHLD;
  how.set_tid = reinterpret_cast<uint64_t>(&number);
  how.set_tid_size = 1;
  const long made = ::syscall(SYS_clone3, &how, sizeof(how));
  if (made == 0) {
    for (;;) ::pause();
  }
  return static_cast<pid_t>(made);
}

TEST_F(HostileVmmTest, WhoeverGetsItsNumberIsNotReadInItsPlace) {
  static char secret[sizeof(kSecret)];
  std::snprintf(secret, sizeof(secret), "%s", kSecret);
  const auto vmm = Start(attacker_, {"--as-victim"});
  ASSERT_OK(vmm);
  const uint64_t own = std::strtoull(AddressOfSecret(attacker_).c_str(), nullptr, 16);
  const auto held = Process::Open(vmm->identity, JailOf(attacker_));
  ASSERT_OK(held);
  char seen[sizeof(kSecret)] = {};
  ASSERT_OK(held->ReadMemory(own, seen, sizeof(seen)));
  EXPECT_STREQ(seen, kSecret) << "its own memory is in reach";

  ASSERT_OK(cgroups_->Kill(attacker_.name));
  pid_t successor = -1;
  ASSERT_TRUE(Eventually([&] { return (successor = StartAs(vmm->identity.pid)) > 0; }));
  char stolen[sizeof(kSecret)] = {};
  const auto read = held->ReadMemory(reinterpret_cast<uint64_t>(secret), stolen, sizeof(stolen));
  EXPECT_FALSE(PathExists(held->ProcFile("maps")));
  EXPECT_FALSE(Process::Open(vmm->identity, JailOf(attacker_)));
  ::kill(successor, SIGKILL);
  ::waitpid(successor, nullptr, 0);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code(), ErrorCode::kUnavailable);
}

TEST_F(HostileVmmTest, WhatItPlantsInItsOwnDirectoryIsRefusedBoundedAndRemoved) {
  const auto victim = Start(victim_, {"--as-victim"});
  ASSERT_OK(victim);
  ASSERT_FALSE(AddressOfSecret(victim_).empty());
  StartPlanter(attacker_, victim_.directory);
  const std::string planted = OutputOf(attacker_, milliseconds(60000));
  ASSERT_TRUE(planted.starts_with("planted ")) << planted;

  // While it lives and holds its lease.
  const auto directory = Directory::Open(attacker_.directory);
  ASSERT_OK(directory);
  const std::string copy = scratch_ / "copy";
  for (const char* trap : kTraps) {
    const ExpectedFile expected{kAttacker, kMostRead};
    EXPECT_FALSE(ReadBeneath(*directory, trap, expected)) << trap;
    EXPECT_FALSE(OpenBeneath(*directory, trap, O_RDWR, expected)) << trap;
    EXPECT_FALSE(CopyBeneath(*directory, trap, expected, copy)) << trap;
    EXPECT_FALSE(PathExists(copy)) << trap;
    EXPECT_EQ(MakeBeneath(*directory, trap, "", 0600, kAttacker).error().code(),
              ErrorCode::kAlreadyExists)
        << trap;
  }
  // Nobody else's room is taken.
  struct statvfs files {};
  ASSERT_EQ(::fstatvfs(directory->fd(), &files), 0);
  EXPECT_EQ(files.f_blocks * files.f_frsize, kOwnBytes);
  EXPECT_EQ(files.f_files, kOwnNames);
  EXPECT_EQ(files.f_bfree, 0U) << planted;
  EXPECT_EQ(files.f_ffree, 0U) << planted;

  // It is ended, and what it planted goes: by names, as at the next start in that directory, ...
  ASSERT_OK(cgroups_->Kill(attacker_.name));
  ASSERT_OK(cgroups_->WaitEmpty(attacker_.name, milliseconds(60000)));
  EXPECT_EQ(RemoveTree(attacker_.directory).error().code(), ErrorCode::kBusy)
      << "a mount is not removed by accident";
  ASSERT_OK(EmptyDirectory(attacker_.directory));
  EXPECT_EQ(ListDirectory(attacker_.directory), std::vector<std::string>());
  // ... and with its file system.
  ASSERT_OK(host_->RunInMounts([&] { return DetachMount(attacker_.directory); }));
  EXPECT_OK(RemoveTree(attacker_.directory));
  EXPECT_FALSE(PathExists(attacker_.directory));
  EXPECT_TRUE(PathExists(victim_.directory + "/secret"));
}

TEST_F(HostileVmmTest, ItsOwnIsInReach) {
  // The same means, turned to what is the VMM's own, do work: the test above tests something.
  const auto victim = Start(victim_, {"--as-victim"});
  ASSERT_OK(victim);
  ASSERT_TRUE(OutputOf(victim_, milliseconds(20000)).starts_with("0x"));
  EXPECT_TRUE(PathExists(victim_.directory + "/secret"));
  EXPECT_TRUE(Connects(victim_.directory + "/api.sock")) << "the agent reaches it from outside";
}

}  // namespace
}  // namespace dormouse::test

int main(int argc, char** argv) {
  const std::string role = argc > 1 ? argv[1] : "";
  if (role == "--as-attacker" && argc == 8) return dormouse::test::Attack(argv + 2);
  if (role == "--as-planter" && argc == 4) return dormouse::test::PlantTraps(argv[2], argv[3]);
  if (role == "--as-victim") return dormouse::test::HoldSecrets();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
