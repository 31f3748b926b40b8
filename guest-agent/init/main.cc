// dormouse-guest: PID 1 of every sandbox. From the initramfs to the sandbox's disk, then the
// server.
#include <fcntl.h>
#include <linux/reboot.h>
#include <signal.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "guest-agent/init/files.h"
#include "guest-agent/init/guest_machine.h"
#include "guest-agent/init/kernel_args.h"
#include "guest-agent/init/limits.h"
#include "guest-agent/init/modules.h"
#include "guest-agent/init/network.h"
#include "guest-agent/init/root_disk.h"
#include "guest-agent/init/runtime_files.h"
#include "guest-agent/init/stillness.h"
#include "guest-agent/server/server.h"

namespace dormouse::guest {
namespace {

constexpr std::chrono::milliseconds kDiskWait{10'000};
constexpr char kCgroups[] = "/sys/fs/cgroup/dormouse";

void Say(const std::string& text) {
  const std::string line = "dormouse-guest: " + text + "\n";
  (void)!::write(STDERR_FILENO, line.data(), line.size());
}

/// The last line on the console is why; then what panic= asks for, as the kernel would.
[[noreturn]] void Die(const std::string& why, const KernelArgs& args) {
  Say("cannot start: " + why);
  ::sync();
  const int panic = args.panic.value_or(0);
  if (panic > 0) (void)::sleep(static_cast<unsigned>(panic));
  (void)::reboot(panic == 0 ? RB_POWER_OFF : RB_AUTOBOOT);
  for (;;) ::pause();
}

/// What is wrong but no reason to stop: it is said on the console and in every health answer.
void Note(std::vector<std::string>& warnings, const Result<void>& result) {
  if (result) return;
  Say("warning: " + result.error().message());
  warnings.push_back(result.error().message());
}

Result<void> Boot(const KernelArgs& args, uint64_t began_ms) {
  DORMOUSE_ASSIGN(ModuleSet modules, ModuleSet::Open("/modules"));
  DORMOUSE_TRY(modules.Load("disk"));
  DORMOUSE_ASSIGN(const std::string type, MountRoot(args, modules, kDiskWait));
  DORMOUSE_TRY(SwitchToRoot());

  std::vector<std::string> warnings;
  if (!args.read_only) Note(warnings, GrowRoot(type, args.root));
  Note(warnings, KeepStill(""));
  Note(warnings, BringUpLoopback());
  Note(warnings, modules.Load("net"));
  // None after the first answer: from then on the VM may be paused, and Cloud Hypervisor 53 hangs
  // where a device is activated at the same time. The vCPU waits for the VMM to activate it
  // (VirtioPciDevice::write_bar), and the VMM for the vCPU to stand still (CpuManager::pause).
  Note(warnings, modules.Load("rng"));
  if (args.network) {
    Note(warnings, ConfigureNetwork(*args.network));
    const std::string& name = args.network->hostname;
    if (!name.empty()) (void)::sethostname(name.data(), name.size());
  }
  Note(warnings, RaiseLimits());
  Note(warnings, MakeDevices(""));
  Note(warnings, MakeRuntimeFiles(""));
  Note(warnings, ApplySysctls(""));
  auto files = OwnFiles::Make("", "/run/dormouse");
  if (!files) Note(warnings, Fail(files.error()));
  if (::mkdir(kCgroups, 0755) != 0 && errno != EEXIST) return FailErrno("make cgroup dormouse");

  (void)::reboot(RB_DISABLE_CAD);  // Ctrl-Alt-Del is SIGINT then
  const sigset_t signals = InitSignals();
  (void)::sigprocmask(SIG_BLOCK, &signals, nullptr);

  // The listener is there before the transport: a host that dialled early is answered at once, not
  // refused.
  DORMOUSE_TRY(modules.Load("socket"));
  DORMOUSE_ASSIGN(UniqueFd listener, ListenVsock(kVsockPort));
  GuestMachine machine(files ? std::optional<OwnFiles>(*std::move(files)) : std::nullopt,
                       args.network ? args.network->address : 0, std::move(warnings));
  ServerOptions options;
  options.agent_version = DORMOUSE_VERSION;
  options.cgroup_dir = kCgroups;
  options.is_init = true;
  options.hook_dir = "/etc/dormouse/clone.d";
  DORMOUSE_ASSIGN(const auto server, Server::Create(std::move(listener), machine, options));
  DORMOUSE_TRY(modules.Load("transport"));
  const uint64_t now_ms = UptimeMs();
  Say("ready after " + std::to_string(now_ms) + " ms, " + std::to_string(now_ms - began_ms) +
      " of them here");
  server->Run();
  return Fail(ErrorCode::kInternal, "the server ended");
}

}  // namespace
}  // namespace dormouse::guest

int main(int argc, char**) {
  using namespace dormouse::guest;
  if (::getpid() != 1 || argc < 1) {
    Say("runs as PID 1 of a microVM only (version " DORMOUSE_VERSION ")");
    return 2;
  }
  const uint64_t began_ms = UptimeMs();
  KernelArgs args;
  if (const auto mounted = MountKernelFileSystems(); !mounted) Die(mounted.error().message(), args);
  const auto cmdline = ReadSmallFile("/proc/cmdline");
  if (!cmdline) Die(cmdline.error().message(), args);
  auto parsed = ParseKernelArgs(*cmdline);
  if (!parsed) Die(parsed.error().message(), args);
  args = *std::move(parsed);
  const auto booted = Boot(args, began_ms);
  Die(booted ? "ended" : booted.error().message(), args);
}
