// dormouse-launch: becomes a VMM that shares nothing with the agent that started it. Given its spec
// (spec.h) on fd 4; everything else it needs is open at a fixed number. Started by host/launch.cc
// only.
//
// Two processes: the first forks the second into the cgroup and tells the agent about it, which is
// the VMM-to-be and so becomes a child of init when the first exits.
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "node-agent/launch/privileges.h"
#include "node-agent/launch/root.h"
#include "node-agent/launch/spec.h"
#include "node-agent/launch/step.h"
#include "node-agent/launch/system_calls.h"

namespace dormouse::launch {
namespace {

constexpr off_t kLargestSpec = 1 << 20;
constexpr char kHostName[] = "vmm";

Spec ReadSpec() {
  struct stat status {};
  Check(::fstat(kSpecFd, &status), "stat spec");
  if (status.st_size > kLargestSpec) DieWithoutErrno("the spec is too large");
  std::string text(static_cast<size_t>(status.st_size), '\0');
  const ssize_t got = Check(::pread(kSpecFd, text.data(), text.size(), 0), "read spec");
  text.resize(static_cast<size_t>(got));
  Spec spec;
  std::string error;
  if (!ParseSpec(text, &spec, &error)) DieWithoutErrno(error);
  return spec;
}

// A fork that also gives a pidfd. Safe as this program has one thread.
pid_t Fork(int* pidfd) {
  clone_args arguments{};
  arguments.flags = CLONE_PIDFD | CLONE_INTO_CGROUP;
  arguments.cgroup = kCgroupFd;
  arguments.pidfd = reinterpret_cast<uint64_t>(pidfd);
  arguments.exit_signal = SIGCHLD;
  return static_cast<pid_t>(
      Check(::syscall(SYS_clone3, &arguments, sizeof(arguments)), "fork into the cgroup"));
}

void TellAgent(pid_t pid, int pidfd) {
  std::string text = kMessageProcess + std::to_string(pid);
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &pidfd, sizeof(int));
  if (::sendmsg(kControlFd, &message, MSG_NOSIGNAL) < 0) {
    // The agent has gone: nobody would know of the VMM.
    ::syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
    ::_exit(1);
  }
}

[[noreturn]] void BecomeVmm(const Spec& spec) {
  Check(::setsid(), "setsid");
  ::umask(022);
  EnterPrivateRoot(spec);
  ::umask(077);
  Check(::setns(kNetNsFd, CLONE_NEWNET), "join the network namespace");
  Check(::unshare(CLONE_NEWIPC | CLONE_NEWUTS), "unshare ipc and uts namespaces");
  Check(::sethostname(kHostName, sizeof(kHostName) - 1), "sethostname");
  // The control socket goes with exec, and so says that all went well.
  Check(::fcntl(kControlFd, F_SETFD, FD_CLOEXEC), "control socket");
  Check(::syscall(SYS_close_range, kControlFd + 1, ~0U, 0), "close files");
  DropPrivileges(spec);
  RefuseSystemCalls();
  std::vector<char*> arguments;
  for (const std::string& argument : spec.command)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  char* const environment[] = {nullptr};
  ::execve(arguments[0], arguments.data(), environment);
  Die("execute " + spec.command[0]);
}

int Run() {
  const Spec spec = ReadSpec();
  SetLimits(spec);  // here, in a /proc that knows us; both are inherited
  int pidfd = -1;
  const pid_t pid = Fork(&pidfd);
  if (pid == 0) BecomeVmm(spec);
  TellAgent(pid, pidfd);
  return 0;
}

}  // namespace
}  // namespace dormouse::launch

int main() {
  return dormouse::launch::Run();
}
