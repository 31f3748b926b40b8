// A stand-in for Cloud Hypervisor v53.0 where there is no KVM: the same command line, the same API
// with the same quirks, the same files and locks; its guest is the project's guest server in this
// process. It says so in --version and in vmm.ping. What it is compared with:
// tests/node/vmm_parity_test.cc.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <string>

#include "tests/fakes/fake-cloud-hypervisor/api.h"
#include "tests/fakes/fake-cloud-hypervisor/events.h"
#include "tests/fakes/fake-cloud-hypervisor/options.h"
#include "tests/fakes/fake-cloud-hypervisor/serial_port.h"
#include "tests/fakes/fake-cloud-hypervisor/vm.h"

namespace dormouse::fake_vmm {
namespace {

[[noreturn]] void Die(const Causes& causes) {
  std::string text = "Error: Cloud Hypervisor exited with the following chain of errors:\n";
  for (size_t i = 0; i < causes.size(); ++i)
    text += "  " + std::to_string(i) + ": " + causes[i] + "\n";
  (void)!::write(STDERR_FILENO, text.data(), text.size());
  ::_exit(1);
}

// Held until the process dies; the file stays, as the real one's does.
UniqueFd LockSocket(const std::string& socket) {
  UniqueFd lock(::open((socket + ".lock").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
  if (!lock)
    Die({"Failed to start the VMM thread", "Error creation API server's socket", OsCause(errno)});
  struct flock whole {};
  whole.l_type = F_WRLCK;
  if (::fcntl(lock.get(), F_OFD_SETLK, &whole) != 0) {
    Die({"Failed to start the VMM thread",
         "API socket " + Quoted(socket) + " is already in use by another running instance"});
  }
  ::unlink(socket.c_str());
  return lock;
}

void OpenHypervisor() {
  // Nothing is asked of it, but who may not open it has no real VMM either.
  if (::access("/dev/kvm", F_OK) != 0) return;
  const UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm && (errno == EACCES || errno == EPERM)) {
    Die({"Failed to open hypervisor interface (is hypervisor interface available?)",
         OsCause(errno)});
  }
}

int Serve(const Options& options) {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  const UniqueFd terminate(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  const UniqueFd wish_fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));

  if (!options.log_file.empty()) {
    UniqueFd file(::open(options.log_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!file) Die({"Error creating log file", OsCause(errno)});
    (void)::dup2(file.get(), STDERR_FILENO);
  }
  OpenHypervisor();

  EventMonitor events;
  if (options.event_fd >= 0) {
    events.WriteTo(UniqueFd(options.event_fd));
  } else if (!options.event_path.empty()) {
    UniqueFd file(
        ::open(options.event_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!file) Die({"Error doing event monitor I/O", OsCause(errno)});
    events.WriteTo(std::move(file));
  }
  events.Tell("vmm", "starting");

  const UniqueFd lock = LockSocket(options.api_socket);
  int errnum = 0;
  UniqueFd listener = ListenAt(options.api_socket, 128, &errnum);
  if (!listener)
    Die({"Failed to start the VMM thread", "Error creation API server's socket", OsCause(errnum)});

  std::atomic<int> wishes{0};  // bits: 1 poweroff, 2 reboot
  Vm vm(&events, [&wishes, &wish_fd](GuestWish wish) {
    wishes.fetch_or(wish == GuestWish::kPoweroff ? 1 : 2);
    const uint64_t one = 1;
    (void)!::write(wish_fd.get(), &one, sizeof(one));
  });
  Api api(&vm);
  HttpServer http(std::move(listener), epoll.get(),
                  [&api](const Request& request) { return api.Handle(request); });
  for (const int fd : {terminate.get(), wish_fd.get()}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    (void)::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
  }

  bool ending = false;
  while (!ending) {
    std::array<epoll_event, 16> ready;
    const int count = ::epoll_wait(epoll.get(), ready.data(), static_cast<int>(ready.size()), -1);
    for (int i = 0; i < count && !ending; ++i) {
      const int fd = ready[static_cast<size_t>(i)].data.fd;
      if (fd == terminate.get()) {
        ending = true;
      } else if (fd == wish_fd.get()) {
        uint64_t ignored = 0;
        (void)!::read(fd, &ignored, sizeof(ignored));
        const int wish = wishes.exchange(0);
        if ((wish & 1) != 0 && options.no_shutdown) {
          (void)vm.Shutdown();
        } else if ((wish & 1) != 0) {
          ending = true;
        } else if ((wish & 2) != 0 && vm.exists() && !vm.Reboot()) {
          // A reboot that fails is an error of the VMM's thread.
          Die({"VMM thread exited with error", "Error rebooting VM"});
        }
      } else {
        (void)http.OnReady(fd, ready[static_cast<size_t>(i)].events);
        ending = api.ending();
      }
    }
  }
  (void)vm.Delete();
  events.Tell("vmm", "shutdown");
  ::unlink(options.api_socket.c_str());
  return 0;
}

int Run(int argc, char** argv) {
  const auto options = ParseOptions(argc, argv);
  if (!options) {
    (void)!::write(STDERR_FILENO, options.error().text.data(), options.error().text.size());
    return options.error().code;
  }
  if (options->version) {
    const std::string text =
        std::string("cloud-hypervisor ") + kBuildVersion + "\nMigration Protocol Versions: 0\n";
    (void)!::write(STDOUT_FILENO, text.data(), text.size());
    return 0;
  }
  ::umask(0077);
  return Serve(*options);
}

}  // namespace
}  // namespace dormouse::fake_vmm

int main(int argc, char** argv) {
  return dormouse::fake_vmm::Run(argc, argv);
}
