#include "node-agent/launch/system_calls.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "node-agent/launch/step.h"

namespace dormouse::launch {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#endif

constexpr uint32_t kNewNamespaces = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID |
                                    CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
constexpr uint32_t kRefuse = SECCOMP_RET_ERRNO | EPERM;

constexpr long kRefused[] = {
    SYS_setns,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsmount,
    SYS_fsconfig,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_open_by_handle_at,
    SYS_name_to_handle_at,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_getfd,
    SYS_kcmp,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_quotactl,
    SYS_syslog,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_personality,
    // The kernel's largest way in that needs no privilege. v53.0 asks for it when it opens a disk,
    // and takes Linux AIO where it is refused (block/src/factory.rs, open_raw).
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    // All that gives a file a name but open() and bind(): what we open in a VMM's directory is then
    // one of the files that it made there itself, and no link, no device and no directory.
    SYS_symlinkat,
    SYS_linkat,
    SYS_mknodat,
    SYS_mkdirat,
    SYS_renameat,
    SYS_renameat2,
#if defined(__x86_64__)
    SYS_symlink,
    SYS_link,
    SYS_mknod,
    SYS_mkdir,
    SYS_rename,
    SYS_iopl,
    SYS_ioperm,
    SYS_modify_ldt,
#endif
};

sock_filter Load(size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}
sock_filter Return(uint32_t value) {
  return BPF_STMT(BPF_RET | BPF_K, value);
}

// Returns `value` when the accumulator compares (BPF_JEQ, BPF_JGE, BPF_JSET) to `operand`.
void ReturnWhen(std::vector<sock_filter>* program, uint16_t comparison, uint32_t operand,
                uint32_t value) {
  program->push_back(BPF_JUMP(static_cast<uint16_t>(BPF_JMP | comparison | BPF_K), operand, 0, 1));
  program->push_back(Return(value));
}

std::vector<sock_filter> Program() {
  std::vector<sock_filter> program;
  program.push_back(Load(offsetof(seccomp_data, arch)));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0));
  program.push_back(Return(SECCOMP_RET_KILL_PROCESS));
  program.push_back(Load(offsetof(seccomp_data, nr)));
  // x32's numbers: the same calls by other names.
  ReturnWhen(&program, BPF_JGE, 0x40000000, SECCOMP_RET_KILL_PROCESS);
  for (const long number : kRefused)
    ReturnWhen(&program, BPF_JEQ, static_cast<uint32_t>(number), kRefuse);
  // Its flags are in memory, which a filter cannot read; the C library then takes clone().
  ReturnWhen(&program, BPF_JEQ, SYS_clone3, SECCOMP_RET_ERRNO | ENOSYS);
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 2, 0));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0));
  program.push_back(Return(SECCOMP_RET_ALLOW));
  program.push_back(
      Load(offsetof(seccomp_data, args)));  // the lower half, on little-endian machines
  ReturnWhen(&program, BPF_JSET, kNewNamespaces, kRefuse);
  program.push_back(Return(SECCOMP_RET_ALLOW));
  return program;
}

}  // namespace

void RefuseSystemCalls() {
  std::vector<sock_filter> program = Program();
  sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  Check(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0), "refuse system calls");
}

}  // namespace dormouse::launch
