// dormouse-controller: assigns sandboxes to nodes and owns their finalizers. One of its replicas
// leads and works; the others keep their caches warm. It touches no host.
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>

#include "controller/controller.h"
#include "controller/options.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/footprint.h"
#include "src/common/base/log.h"
#include "src/common/base/metrics.h"
#include "src/common/http/probes.h"
#include "src/common/http/server.h"
#include "src/common/kube/cluster_config.h"
#include "src/common/kube/cpprest_transport.h"
#include "src/common/kube/lease.h"
#include "src/common/kube/waiter.h"

namespace dormouse::controller {
namespace {

/// Waits for SIGTERM or SIGINT, which every thread has blocked, or until `until` holds; true for a
/// signal.
template <typename Predicate>
bool WaitForSignal(const sigset_t& signals, Predicate until) {
  const timespec period{0, 50'000'000};
  while (!until()) {
    if (sigtimedwait(&signals, nullptr, &period) > 0) return true;
  }
  return false;
}

std::string InstanceName() {
  if (const char* pod = std::getenv("POD_NAME"); pod != nullptr && *pod != '\0') return pod;
  std::string name(256, '\0');
  if (gethostname(name.data(), name.size() - 1) != 0) return "dormouse-controller";
  name.resize(name.find('\0'));
  return name;
}

struct Servers {
  std::unique_ptr<http::Server> health, metrics;
};

Result<Servers> Serve(const Options& options, const Controller& controller) {
  Servers servers;
  DORMOUSE_ASSIGN(servers.health, http::Server::Listen(options.health_address));
  const auto synced = [&controller]() -> Result<> {
    std::string missing;
    if (controller.Synced(&missing)) return {};
    return Fail(ErrorCode::kUnavailable, missing + " are not listed yet");
  };
  http::ServeProbes(*servers.health, {}, {{"caches", synced}}, metrics::Registry::Default());
  if (!options.metrics_address.empty() && options.metrics_address != options.health_address) {
    DORMOUSE_ASSIGN(servers.metrics, http::Server::Listen(options.metrics_address));
    http::ServeProbes(*servers.metrics, {}, {}, metrics::Registry::Default());
    servers.metrics->Start();
  }
  servers.health->Start();
  return servers;
}

/// Leads while it can. What must not happen is that two lead: so the process ends at once, with
/// nothing tidied up, when the lease is lost.
class Leadership {
 public:
  Leadership(std::shared_ptr<kube::HttpTransport> transport, const Options& options)
      : elector_(std::move(transport), ElectionOptions(options)) {
    thread_ = std::jthread([this](const std::stop_token& stop) {
      const auto ended = elector_.Run(stop, [this] { leading_ = true; });
      if (ended) return;
      log::Error("lease lost", {{"error", ended.error().message()}});
      _exit(1);
    });
  }
  [[nodiscard]] bool leading() const { return leading_; }
  /// Once nothing works any more.
  void GiveUp() {
    thread_.request_stop();
    thread_.join();
    if (leading_) elector_.Release();
  }

 private:
  static kube::LeaderElectionOptions ElectionOptions(const Options& options) {
    kube::LeaderElectionOptions election;
    election.lease = {options.lease_namespace, options.lease_name};
    election.lease_duration = options.lease_duration;
    election.renew_deadline = options.renew_deadline;
    election.retry_period = options.retry_period;
    return election;
  }

  kube::LeaderElector elector_;
  std::atomic<bool> leading_{false};
  std::jthread thread_;
};

/// Gives memory back when start-up, or a burst of work, has ended: once after each.
void TidyWhenIdle(const std::stop_token& stop, const Controller& controller) {
  std::optional<uint64_t> tidied_at;
  uint64_t last = controller.Reconciles();
  while (kube::Waiter::System().Wait(std::chrono::seconds(10), stop)) {
    const uint64_t now = controller.Reconciles();
    if (now == std::exchange(last, now) && tidied_at != now) {
      tidied_at = now;
      if (const auto dropped = DropUnusedPages(); !dropped) {
        log::Warning("unused pages stay", {{"error", dropped.error().message()}});
      }
    }
  }
}

Result<> Run(const Options& options, const sigset_t& signals) {
  DORMOUSE_TRY(failpoint::ArmFromEnvironment());
  DORMOUSE_ASSIGN(const kube::ClusterConfig cluster,
                  kube::LoadClusterConfig(options.kubeconfig, options.context));
  kube::TransportOptions transport_options;
  transport_options.user_agent = "dormouse-controller/" DORMOUSE_VERSION;
  DORMOUSE_ASSIGN(const auto transport, kube::MakeTransport(cluster, transport_options));
  kube::EventRecorderOptions event_options;
  event_options.controller = "dormouse.dev/controller";
  event_options.instance = InstanceName();
  kube::EventRecorder events(transport, event_options);
  events.Start();
  Controller controller(transport, options, events);
  DORMOUSE_ASSIGN(Servers servers, Serve(options, controller));
  log::Info("started", {{"version", DORMOUSE_VERSION}, {"server", cluster.server}});

  controller.StartCaches();
  const auto synced = [&controller] { return controller.Synced(); };
  if (WaitForSignal(signals, synced)) return {};
  log::Info("caches synced");
  const std::jthread tidy(
      [&controller](const std::stop_token& stop) { TidyWhenIdle(stop, controller); });
  std::optional<Leadership> leadership;
  if (options.leader_elect) {
    leadership.emplace(transport, options);
    if (WaitForSignal(signals, [&leadership] { return leadership->leading(); })) {
      leadership->GiveUp();
      return {};
    }
    log::Info("leading", {{"lease", options.lease_namespace + "/" + options.lease_name}});
  }
  controller.StartWorking();
  while (sigwaitinfo(&signals, nullptr) < 0) {  // EINTR, after a SIGSTOP
  }
  log::Info("stopping");
  controller.StopWorking();
  if (leadership) leadership->GiveUp();
  return {};
}

}  // namespace
}  // namespace dormouse::controller

int main(int argc, char** argv) {
  // Before any thread exists: what a thread allocates stays in its arena, and we hold a dozen idle
  // ones.
  mallopt(M_ARENA_MAX, 2);
  dormouse::kube::InitialiseProcess(4);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  const auto parsed = dormouse::controller::ParseOptions(argc, argv);
  if (!parsed.run) return parsed.exit_code;
  dormouse::log::Configure(parsed.options.log_level, parsed.options.log_json);
  const auto ended = dormouse::controller::Run(parsed.options, signals);
  if (ended) return 0;
  dormouse::log::Error("cannot go on", {{"error", ended.error().message()}});
  return 1;
}
