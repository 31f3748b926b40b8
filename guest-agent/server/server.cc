#include "guest-agent/server/server.h"

#include <linux/vm_sockets.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>

#include "guest-agent/server/connection.h"
#include "guest-agent/server/context.h"
#include "guest-agent/server/control.h"
#include "guest-agent/server/power_off.h"

namespace dormouse::guest {

namespace {

/// Between SIGTERM and SIGKILL of a workload whose machine is told to stop from within.
constexpr std::chrono::milliseconds kStopGrace{10'000};

bool AsksForReboot(int signal) {
  return signal == SIGTERM || signal == SIGINT || signal == SIGRTMIN + 5;
}

}  // namespace

class Server::Impl {
 public:
  Impl(std::unique_ptr<EventLoop> loop, UniqueFd listener, Machine& machine, ServerOptions options,
       Cgroup workload_cgroup, Cgroup exec_cgroup, Cgroup hook_cgroup, const ServerState& known)
      : loop_(std::move(loop)),
        listener_(std::move(listener)),
        options_(std::move(options)),
        processes_(*loop_),
        exec_cgroup_(std::move(exec_cgroup)),
        workload_(*loop_, processes_, machine, std::move(workload_cgroup), options_.log_bytes,
                  known.workload),
        freezer_(*loop_, processes_, machine, {&workload_.cgroup(), &exec_cgroup_}, known.frozen),
        hooks_(*loop_, processes_, machine, std::move(hook_cgroup),
               {options_.hook_dir, options_.hook_limit}),
        thawer_(machine, freezer_, hooks_),
        context_{*loop_,
                 machine,
                 options_,
                 processes_,
                 workload_,
                 exec_cgroup_,
                 freezer_,
                 thawer_,
                 {},
                 known.configured,
                 [this] { Remember(); }} {}

  Result<void> Begin() {
    loop_->SetOnWake([this] { TakeAdopted(); });
    (void)workload_.Observe([this] { Remember(); });
    freezer_.SetOnFreeze([this] {
      frozen_since_ = next_connection_;
      Remember();
    });
    thawer_.SetOnThaw([this](bool elsewhere) {
      Remember();
      // After the answer: who asked may do so on a connection that is as old.
      if (elsewhere) loop_->Defer([this, first = frozen_since_] { CloseBefore(first); });
    });
    if (listener_) {
      DORMOUSE_TRY(loop_->Watch(listener_.get(), EPOLLIN, [this](uint32_t) { Accept(); }));
    }
    if (!options_.is_init) return {};
    const sigset_t signals = InitSignals();
    signals_ = UniqueFd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_) return FailErrno("signalfd");
    return loop_->Watch(signals_.get(), EPOLLIN, [this](uint32_t) { TakeSignals(); });
  }

  EventLoop& loop() { return *loop_; }

  void Adopt(UniqueFd connection) {
    {
      const std::lock_guard lock(adopted_mutex_);
      adopted_.push_back(std::move(connection));
    }
    loop_->Wake();
  }

 private:
  void TakeSignals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
      const int number = static_cast<int>(info.ssi_signo);
      if (number != SIGCHLD) PowerOffMachine(context_, kStopGrace, AsksForReboot(number));
    }
    processes_.ReapAll();
  }

  void Accept() {
    sockaddr_storage peer{};
    socklen_t length = sizeof(peer);
    UniqueFd fd(::accept4(listener_.get(), reinterpret_cast<sockaddr*>(&peer), &length,
                          SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) return;
    // Only the host: a process of the guest that finds a way to its own port would be root.
    if (peer.ss_family == AF_VSOCK &&
        reinterpret_cast<const sockaddr_vm&>(peer).svm_cid != VMADDR_CID_HOST) {
      return;
    }
    Serve(std::move(fd));
  }

  void TakeAdopted() {
    std::vector<UniqueFd> taken;
    {
      const std::lock_guard lock(adopted_mutex_);
      taken.swap(adopted_);
    }
    for (UniqueFd& fd : taken) Serve(std::move(fd));
  }

  void Serve(UniqueFd fd) {
    if (connections_.size() >= options_.max_connections && !ShedOldestIdle()) return;
    const uint64_t id = next_connection_++;
    auto connection =
        std::make_unique<Connection>(*loop_, std::move(fd), [this, id] { connections_.erase(id); });
    Connection& started = *connection;
    connections_.emplace(id, std::move(connection));
    if (!started.Start(std::make_unique<ControlHandler>(context_, started))) {
      connections_.erase(id);
      return;
    }
    started.SetIdleLimit(options_.first_request_limit);
  }

  bool ShedOldestIdle() {
    const auto idle = std::find_if(connections_.begin(), connections_.end(),
                                   [](const auto& each) { return each.second->IsIdle(); });
    if (idle == connections_.end()) return false;
    idle->second->Close();
    return true;
  }

  void Remember() {
    context_.machine.Remember({context_.configured, freezer_.holding(), workload_.status()});
  }

  /// The VMM resets them when it restores; whoever was not told of it is not kept waiting.
  void CloseBefore(uint64_t id) {
    for (const auto& [known, connection] : connections_) {
      if (known < id) connection->Close();
    }
  }

  std::unique_ptr<EventLoop> loop_;
  UniqueFd listener_;
  UniqueFd signals_;
  ServerOptions options_;
  ProcessTable processes_;
  Cgroup exec_cgroup_;
  Workload workload_;
  Freezer freezer_;
  CloneHooks hooks_;
  Thawer thawer_;
  Context context_;
  std::map<uint64_t, std::unique_ptr<Connection>> connections_;
  uint64_t next_connection_ = 1;
  uint64_t frozen_since_ = 0;  ///< the first connection after the last freeze
  std::mutex adopted_mutex_;
  std::vector<UniqueFd> adopted_;
};

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::Create(UniqueFd listener, Machine& machine,
                                               ServerOptions options) {
  DORMOUSE_ASSIGN(auto loop, EventLoop::Create());
  DORMOUSE_ASSIGN(Cgroup workload, Cgroup::Create(options.cgroup_dir, "workload"));
  DORMOUSE_ASSIGN(Cgroup exec, Cgroup::Create(options.cgroup_dir, "exec"));
  DORMOUSE_ASSIGN(Cgroup hooks, Cgroup::Create(options.cgroup_dir, "hooks"));
  auto impl = std::make_unique<Impl>(std::move(loop), std::move(listener), machine,
                                     std::move(options), std::move(workload), std::move(exec),
                                     std::move(hooks), machine.Recall());
  DORMOUSE_TRY(impl->Begin());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

void Server::Run() {
  impl_->loop().Run();
}
void Server::Stop() {
  impl_->loop().Stop();
}
void Server::Adopt(UniqueFd connection) {
  impl_->Adopt(std::move(connection));
}

sigset_t InitSignals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int each : {SIGCHLD, SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGPWR, SIGRTMIN + 3,
                         SIGRTMIN + 4, SIGRTMIN + 5}) {
    ::sigaddset(&signals, each);
  }
  return signals;
}

Result<UniqueFd> ListenVsock(uint32_t port) {
  UniqueFd fd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return FailErrno("vsock socket");
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = port;
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return FailErrno("bind vsock port " + std::to_string(port));
  }
  if (::listen(fd.get(), 64) != 0) return FailErrno("listen on vsock");
  return fd;
}

}  // namespace dormouse::guest
