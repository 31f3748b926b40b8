#include "guest-agent/init/guest_machine.h"

#include <fcntl.h>
#include <linux/random.h>
#include <linux/reboot.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "guest-agent/init/files.h"
#include "guest-agent/init/identity.h"
#include "guest-agent/init/names.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::guest {
namespace {

constexpr std::chrono::milliseconds kTermGrace{1'000};

/// Until no child is left or the time is up. SIGCHLD is blocked, so it can be waited for.
void ReapUntil(std::chrono::steady_clock::time_point deadline) {
  sigset_t child;
  ::sigemptyset(&child);
  ::sigaddset(&child, SIGCHLD);
  for (;;) {
    pid_t got = 0;
    while ((got = ::waitpid(-1, nullptr, WNOHANG)) > 0) {
    }
    if (got < 0 || std::chrono::steady_clock::now() >= deadline) return;
    const timespec step{0, 50'000'000};
    (void)::sigtimedwait(&child, nullptr, &step);
  }
}

std::string KernelsUuid(const char* path) {
  auto text = ReadSmallFile(path);
  if (!text) return "unknown";
  while (!text->empty() && text->back() == '\n') text->pop_back();
  return *std::move(text);
}

std::string KernelsBootId() {
  return KernelsUuid("/proc/sys/kernel/random/boot_id");
}

std::string RandomUuid() {
  return KernelsUuid("/proc/sys/kernel/random/uuid");
}

}  // namespace

uint64_t UptimeMs() {
  timespec now{};
  (void)::clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000 + static_cast<uint64_t>(now.tv_nsec) / 1'000'000;
}

GuestMachine::GuestMachine(std::optional<OwnFiles> files, uint32_t address,
                           std::vector<std::string> warnings)
    : files_(std::move(files)),
      address_(address),
      boot_id_(KernelsBootId()),
      warnings_(std::move(warnings)) {}

Result<void> GuestMachine::Put(const std::string& path, std::string_view text) {
  return files_ ? files_->Put(path, text, identity_notes_) : Result<void>();
}

Result<void> GuestMachine::SetHostname(const std::string& hostname) {
  if (::sethostname(hostname.data(), hostname.size()) != 0) return FailErrno("set hostname");
  if (!files_) return {};
  DORMOUSE_TRY(Put("/etc/hostname", hostname + "\n"));
  return Put("/etc/hosts", HostsText(hostname, address_, files_->Image("/etc/hosts")));
}

Result<void> GuestMachine::SetMachineId(const std::string& machine_id) {
  if (machine_id == machine_id_) return {};
  machine_id_ = machine_id;
  const std::string text = machine_id + "\n";
  DORMOUSE_TRY(Put("/etc/machine-id", text));
  struct stat info {};
  for (const char* other : {"/run/machine-id", "/var/lib/dbus/machine-id"}) {
    if (::lstat(other, &info) == 0 && S_ISREG(info.st_mode)) DORMOUSE_TRY(Put(other, text));
  }
  // Guests that start from one snapshot have their kernel's boot_id in common.
  return Put("/proc/sys/kernel/random/boot_id", RandomUuid() + "\n");
}

Result<void> GuestMachine::SetDns(const Dns& asked, const std::vector<std::string>& resolvers) {
  if (!files_) return {};
  const std::string image = files_->Image("/etc/resolv.conf");
  const auto text = ResolvConfText(asked, resolvers, image);
  // A clone may have been told other resolvers than its source.
  if (!text && !files_->Covers("/etc/resolv.conf")) return {};
  return Put("/etc/resolv.conf", text.value_or(image));
}

Result<void> GuestMachine::RemoveHostKeys() {
  return RemoveSshHostKeys("", identity_notes_);
}

Result<void> GuestMachine::SetWallTime(int64_t since_1970_ns) {
  timespec now{};
  now.tv_sec = since_1970_ns / 1'000'000'000;
  now.tv_nsec = since_1970_ns % 1'000'000'000;
  if (::clock_settime(CLOCK_REALTIME, &now) != 0) return FailErrno("set the clock");
  return {};
}

Result<void> GuestMachine::AddEntropy(std::string_view bytes) {
  const UniqueFd fd(::open("/dev/urandom", O_WRONLY | O_CLOEXEC));
  if (!fd) return FailErrno("open /dev/urandom");
  // struct rand_pool_info with its bytes behind it (random(4)).
  std::string request(sizeof(rand_pool_info) + bytes.size(), '\0');
  rand_pool_info header{};
  header.entropy_count = static_cast<int>(bytes.size() * 8);
  header.buf_size = static_cast<int>(bytes.size());
  std::memcpy(request.data(), &header, sizeof(header));
  bytes.copy(request.data() + sizeof(header), bytes.size());
  if (::ioctl(fd.get(), RNDADDENTROPY, request.data()) != 0) return FailErrno("add entropy");
  if (::ioctl(fd.get(), RNDRESEEDCRNG) != 0) return FailErrno("reseed the generator");
  return {};
}

Result<void> GuestMachine::TakeIdentity(const Identity& identity) {
  identity_notes_.clear();
  return Machine::TakeIdentity(identity);
}

void GuestMachine::SyncInChild() {
  ::sync();
}

std::vector<std::string> GuestMachine::Warnings() {
  std::vector<std::string> all = warnings_;
  all.insert(all.end(), identity_notes_.begin(), identity_notes_.end());
  return all;
}

void GuestMachine::PowerOff(bool reboot) {
  WriteConsole(reboot ? "dormouse-guest: restarting\n" : "dormouse-guest: powering off\n");
  (void)::kill(-1, SIGTERM);
  (void)::kill(-1, SIGCONT);
  ReapUntil(std::chrono::steady_clock::now() + kTermGrace);
  (void)::kill(-1, SIGKILL);
  ReapUntil(std::chrono::steady_clock::now() + kTermGrace);
  ::sync();
  // Read-only where nothing holds it writable; the sync above has saved the rest.
  (void)::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_RDONLY, nullptr);
  (void)::reboot(reboot ? RB_AUTOBOOT : RB_POWER_OFF);
  for (;;) ::pause();
}

void GuestMachine::WriteConsole(std::string_view bytes) {
  const UniqueFd fd(::open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK));
  if (fd) (void)!::write(fd.get(), bytes.data(), bytes.size());
}

}  // namespace dormouse::guest
