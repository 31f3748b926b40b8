#include "node-agent/launch/privileges.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "node-agent/launch/step.h"

namespace dormouse::launch {
namespace {

void Limit(__rlimit_resource resource, rlim_t value, const char* name) {
  const rlimit limit{value, value};
  Check(::setrlimit(resource, &limit), std::string("limit ") + name);
}

void DropBoundingSet() {
  for (unsigned long capability = 0;; ++capability) {
    if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
    if (errno == EINVAL && capability > 0) return;  // past the last one that this kernel knows
    Die("drop capability " + std::to_string(capability));
  }
}

void ResetSignals() {
  // By the system call: the C library keeps 32 and 33 to itself, and posix_spawn() leaves them
  // ignored. KILL and STOP cannot be set, and need not be.
  struct {
    void* handler;
    unsigned long flags;
    void* restorer;
    uint64_t mask;
  } const by_default{};
  for (int signal = 1; signal < NSIG; ++signal) {
    (void)::syscall(SYS_rt_sigaction, signal, &by_default, nullptr, sizeof(by_default.mask));
  }
  sigset_t none;
  ::sigemptyset(&none);
  Check(::sigprocmask(SIG_SETMASK, &none, nullptr), "unblock signals");
}

}  // namespace

void SetLimits(const Spec& spec) {
  Limit(RLIMIT_CORE, 0, "core");  // a core of a VMM is its guest's memory
  Limit(RLIMIT_NOFILE, static_cast<rlim_t>(spec.max_open_files), "nofile");
  Limit(RLIMIT_FSIZE, static_cast<rlim_t>(spec.max_file_bytes), "fsize");
  const std::string score = std::to_string(spec.oom_score_adjust);
  const int file = static_cast<int>(
      Check(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC), "oom_score_adj"));
  Check(::write(file, score.data(), score.size()), "oom_score_adj");
  ::close(file);
}

void DropPrivileges(const Spec& spec) {
  DropBoundingSet();
  Check(::setgroups(0, nullptr), "setgroups");
  Check(::setresgid(spec.gid, spec.gid, spec.gid), "setresgid");
  Check(::setresuid(spec.uid, spec.uid, spec.uid), "setresuid");
  // setresuid() from 0 has cleared them already, unless a securebit was inherited.
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct none[2] = {};
  Check(::syscall(SYS_capset, &header, none), "capset");
  Check(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear ambient capabilities");
  Check(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
  Check(::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable");
  ResetSignals();
}

}  // namespace dormouse::launch
