#include "node-agent/run.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>

#include "node-agent/cluster_identity.h"
#include "node-agent/host/dm.h"
#include "node-agent/host/loop.h"
#include "node-agent/keeper/memory_keeper.h"
#include "node-agent/machine/machine_linux.h"
#include "node-agent/net/resolvers.h"
#include "node-agent/node/node_publisher.h"
#include "node-agent/sandbox/agent.h"
#include "node-agent/sandbox/template_keeper.h"
#include "node-agent/serve/agent_metrics.h"
#include "node-agent/serve/control_server.h"
#include "src/common/api/reasons.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/files.h"
#include "src/common/base/footprint.h"
#include "src/common/base/log.h"
#include "src/common/http/probes.h"
#include "src/common/kube/cluster_config.h"
#include "src/common/kube/controller_loop.h"
#include "src/common/kube/cpprest_transport.h"
#include "src/common/kube/reflector.h"

namespace dormouse {
namespace {

using namespace std::chrono_literals;

constexpr auto kIdentityRetry = 2s;
constexpr auto kDrain = 10s;
// Heartbeats are ten seconds apart, and each of the two requests of one that fails takes no longer.
constexpr auto kStandstill = 2min;
constexpr size_t kMaxResolvConf = 64 << 10;
// Where systemd-resolved serves the node, /etc/resolv.conf may name its loopback alone.
constexpr char kResolvedConf[] = "/proc/1/root/run/systemd/resolve/resolv.conf";

std::string OwnDirectory() {
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path - 1);
  const std::string whole(path, length > 0 ? static_cast<size_t>(length) : 0);
  return whole.substr(0, whole.find_last_of('/'));
}

// SIGTERM and SIGINT become a readable descriptor; every thread inherits the mask.
Result<UniqueFd> StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  if (::pthread_sigmask(SIG_BLOCK, &signals, nullptr) != 0) return FailErrno("block signals");
  ::signal(SIGPIPE, SIG_IGN);
  UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC));
  if (!fd) return FailErrno("signalfd");
  return fd;
}

// A VM takes five descriptors, and what starts us may allow no more than 1024. What we launch gets
// a limit of its own.
void RaiseFileLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0)
    log::Warning("the limit of open files stays as it is", {{"errno", errno}});
}

// Waits for a stop signal; false when `limit` passed without one.
bool WaitForStop(int signals, std::chrono::milliseconds limit) {
  timeval time{limit.count() / 1000, static_cast<suseconds_t>(limit.count() % 1000 * 1000)};
  fd_set set;
  FD_ZERO(&set);
  FD_SET(signals, &set);
  return ::select(signals + 1, &set, nullptr, nullptr, &time) > 0;
}

// Calls `work` once a period, until it is destroyed.
class Ticker {
 public:
  Ticker(std::chrono::milliseconds period, std::function<void()> work)
      : thread_([this, period, work = std::move(work)](const std::stop_token& stop) {
          std::unique_lock lock(mutex_);
          while (!changed_.wait_for(lock, stop, period, [] { return false; }) &&
                 !stop.stop_requested())
            work();
        }) {}

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::jthread thread_;
};

std::vector<std::string> NodesResolvers(const AgentFlags& flags) {
  for (const std::string& path : {flags.resolv_conf, std::string(kResolvedConf)}) {
    if (const auto text = ReadFile(path, kMaxResolvConf)) {
      if (auto found = net::ResolversIn(*text); !found.empty()) return found;
    }
  }
  log::Warning("no DNS server of this node can be asked by guests: name them with --resolver",
               {{"file", flags.resolv_conf}});
  return {};
}

Result<LinuxMachineConfig> MachineConfig(const AgentFlags& flags, const Hardware& hardware) {
  const char* path = std::getenv("PATH");
  LinuxMachineConfig config;
  config.images_directory = flags.images_dir;
  config.kernel = flags.kernel;
  config.initramfs = flags.initramfs;
  config.extra_cmdline = flags.guest_cmdline;
  config.launcher = flags.launcher.empty() ? OwnDirectory() + "/dormouse-launch" : flags.launcher;
  config.net.netns_directory = flags.run_dir + "/netns";
  config.net.resolvers = flags.resolvers.empty() ? NodesResolvers(flags) : flags.resolvers;
  config.net.deny_always = flags.deny_always;
  config.net.allow_platform = flags.allow_platform;
  DORMOUSE_TRY(net::CheckPolicy({net::Egress::kOpen, flags.allow_platform, flags.deny_always, {}}));
  config.net.pool = static_cast<size_t>(flags.netns_pool);
  config.cgroups.mount_point = flags.cgroup_mount;
  config.cgroups.slice = flags.cgroup_slice;
  config.cgroups.require_controllers = hardware.cgroup_controllers;
  config.paths.state = flags.state_dir;
  config.paths.run = flags.run_dir;
  DORMOUSE_ASSIGN(config.vmm_binary, vmm::FindVmmBinary(flags.vmm, path != nullptr ? path : ""));
  DORMOUSE_ASSIGN(config.net.range, net::AddressRange::Parse(flags.host_address_range));
  config.allocation_window = static_cast<uint64_t>(flags.disk_window_mib) << 20;
  config.capacity.reserve_bytes = static_cast<uint64_t>(flags.disk_reserve_mib) << 20;
  config.capacity.pause_bytes = static_cast<uint64_t>(flags.disk_pause_mib) << 20;
  config.capacity.resume_bytes = config.capacity.pause_bytes * 3 / 2;
  config.capacity.last_resort_bytes = config.capacity.pause_bytes / 4;
  return config;
}

BootSnapshots BootSnapshotsOf(const std::string& text) {
  return text == "off"    ? BootSnapshots::kOff
         : text == "node" ? BootSnapshots::kNode
                          : BootSnapshots::kNamespace;
}

// What the node's object shall say now.
NodeObservation ObserveNode(const Agent& agent, LinuxMachine& machine,
                            const TemplateStore& templates, const Paths& paths) {
  NodeObservation seen;
  for (const auto& each : templates.All()) {
    if (!each->IsBootSnapshot()) seen.templates.push_back(each->ns + "/" + each->name);
  }
  seen.sandboxes = agent.List();
  if (auto images = machine.images().Scan()) {
    for (const disk::Image& image : *images) {
      // One that cannot be used, or not yet, is not offered: sandboxes that name it wait.
      if (!image.problem.empty() || image.digest.empty()) continue;
      seen.images.push_back({image.name, image.digest, static_cast<int64_t>(image.size_bytes)});
    }
  }
  seen.hypervisor = machine.version();
  seen.network = machine.node_network();
  if (auto space = host::SpaceOf(paths.state)) seen.space = *space;
  seen.stand_still = agent.StandStill();
  switch (agent.disk_state()) {
    case Machine::DiskState::kFine:
      break;
    case Machine::DiskState::kRefuseNew:
      seen.disk = NodeDisk::kRefuseNew;
      break;
    case Machine::DiskState::kFull:
      seen.disk = NodeDisk::kPauseGuests;
      break;
  }
  return seen;
}

// What stands still for so long does not go on by itself, and to be killed costs the agent nothing:
// the kubelet does that when this fails, or does not answer.
std::vector<http::Check> SignsOfLife(const kube::Heartbeat& heartbeat, const Agent& agent) {
  return {{"heartbeat",
           [&heartbeat]() -> Result<> {
             const auto last = heartbeat.last_attempt();
             if (!last || Clock::System().Now() - *last < kStandstill) return {};
             return Fail(ErrorCode::kInternal, "stands still");
           }},
          {"sandboxes", [&agent]() -> Result<> {
             (void)agent.List();  // waits for what every worker needs
             return {};
           }}};
}

}  // namespace

Hardware Hardware::Node() {
  return {host::OpenDeviceMapper, host::OpenLoopDevices, true};
}

Result<> RunAgent(const AgentFlags& flags, const Hardware& hardware) {
  DORMOUSE_ASSIGN(const NodeName node, NodeName::Parse(flags.node_name));
  DORMOUSE_ASSIGN(const UniqueFd signals, StopSignals());
  RaiseFileLimit();
  DORMOUSE_TRY(failpoint::ArmFromEnvironment());
  DORMOUSE_TRY(MakeDirectories(flags.state_dir, 0755));
  DORMOUSE_TRY(MakeDirectories(flags.run_dir, 0755));

  DORMOUSE_ASSIGN(const auto cluster, kube::LoadClusterConfig(flags.kubeconfig));
  DORMOUSE_ASSIGN(auto transport, kube::MakeTransport(cluster, {.user_agent = "dormouse-agent"}));
  kube::Client client(transport, {.field_manager = api::kAgentManager});
  kube::EventRecorder events(transport, {.controller = "dormouse.dev/agent",
                                         .instance = node.text(),
                                         .labels = {{"dormouse.dev/reporter", "agent"}}});
  kube::WorkQueue queue({.name = "sandbox", .max_delay = 30s});
  kube::Store<api::Sandbox> sandboxes;
  sandboxes.Subscribe([&queue](const kube::Store<api::Sandbox>::Change& change) {
    queue.Add(change.ref.uid, change.initial ? kube::Priority::kLow : kube::Priority::kNormal);
    if (change.before && change.after == nullptr) queue.Add(change.before->uid.text());
  });

  kube::WorkQueue template_queue({.name = "template", .max_delay = 30s});
  kube::Store<api::SnapshotTemplate> template_objects;
  template_objects.Subscribe(
      [&template_queue](const kube::Store<api::SnapshotTemplate>::Change& change) {
        template_queue.Add(change.ref.uid);
        if (change.before && change.after == nullptr) template_queue.Add(change.before->meta.uid);
      });

  Paths paths{flags.state_dir, flags.run_dir};
  Result<std::string> identity = ReadClusterIdentity(client, paths.AgentFile());
  while (!identity) {
    log::Warning("waiting for the API server", {{"error", identity.error().message()}});
    if (WaitForStop(signals.get(), kIdentityRetry)) return {};
    identity = ReadClusterIdentity(client, paths.AgentFile());
  }

  DORMOUSE_ASSIGN(const auto host, host::HostNamespaces::Open(flags.host_namespaces));
  const std::string device_nodes = paths.DeviceNodes();
  DORMOUSE_TRY(MakeDirectories(device_nodes, 0700));
  DORMOUSE_ASSIGN(const auto dm, hardware.device_mapper(device_nodes));
  DORMOUSE_ASSIGN(const auto loops, hardware.loop_devices(device_nodes));
  DORMOUSE_ASSIGN(auto config, MachineConfig(flags, hardware));
  DORMOUSE_ASSIGN(NodeFacts facts, ReadNodeFacts(paths.state));
  if (!hardware.kvm) facts.kvm = true;
  config.cpu_model = facts.cpu_model;
  const disk::CapacityPolicy capacity = config.capacity;
  config.network_repaired = [&events, &node](const std::string& what) {
    events.Record({api::kApiVersion, "SandboxNode", "", node.text(), ""}, kube::EventType::kWarning,
                  std::string(api::reasons::kRulesRepaired), "Repair",
                  what + " was missing on the node and is back");
  };
  std::atomic<Agent*> agent_slot{nullptr};
  DORMOUSE_ASSIGN(const auto machine, LinuxMachine::Open(std::move(config), host, *dm, *loops,
                                                         [&agent_slot](const std::string& uid) {
                                                           if (Agent* agent = agent_slot.load())
                                                             agent->OnMachineChanged(uid);
                                                         }));

  RecordStore records(paths, *identity);
  TemplateStore templates(paths, *identity);
  KubeControlPlane control_plane(client, events);
  KubeTemplateControlPlane template_control_plane(client, events);
  AgentOptions options;
  options.node_name = node.text();
  options.node_ip = flags.node_ip;
  options.guest_timeout = std::chrono::seconds(flags.guest_timeout_s);
  options.vmm_timeout = std::chrono::seconds(flags.vmm_timeout_s);
  options.memory_bytes = facts.memory_bytes - (flags.reserve_memory_mib << 20);
  options.capacity = capacity;
  options.wakes_at_once = std::max(1U, std::thread::hardware_concurrency());
  options.orphan_retention = std::chrono::seconds(flags.orphan_retention_s);
  options.boot_snapshots = BootSnapshotsOf(flags.boot_snapshots);
  options.boot_snapshot_bytes = flags.boot_snapshot_space_mib << 20;
  Agent agent(
      options, *machine, records, templates, sandboxes, control_plane,
      [&queue](const std::string& uid) { queue.Add(uid); },
      [&template_queue](const std::string& uid) { template_queue.Add(uid); });
  TemplateKeeper keeper(options, agent, *machine, records, templates, template_objects, sandboxes,
                        template_control_plane);
  agent_slot = &agent;
  DORMOUSE_TRY(agent.Adopt());

  MemoryKeeper memory_keeper({.digest_after = std::chrono::seconds(flags.digest_after_s),
                              .scrub_every = std::chrono::seconds(flags.scrub_every_s)},
                             paths, records, templates,
                             [&agent](const api::SandboxUid& owner, uint64_t generation,
                                      std::optional<std::string> damage) {
                               agent.NoteMemory(owner, generation, std::move(damage));
                             });

  NodePublisherOptions publishing{.name = node, .facts = facts, .allowance = {}, .endpoint = {}};
  publishing.allowance.reserve_memory_bytes = flags.reserve_memory_mib << 20;
  publishing.allowance.reserve_cpus = flags.reserve_cpus;
  publishing.allowance.cpu_overcommit = flags.cpu_overcommit;
  publishing.allowance.disk_overcommit = flags.disk_overcommit;
  publishing.allowance.reserve_disk_bytes = static_cast<uint64_t>(flags.disk_reserve_mib) << 20;
  kube::Heartbeat heartbeat(transport, NodeLeaseOptions(node, flags.lease_namespace));
  publishing.lease_beginnings = [&heartbeat] { return heartbeat.beginnings(); };
  NodePublisher publisher(client, publishing,
                          [&] { return ObserveNode(agent, *machine, templates, paths); });

  kube::Reflector<api::Sandbox> reflector(
      *transport,
      {.type = {api::kGroup, api::kVersion, "sandboxes", true},
       .field_selector = "status.nodeName=" + node.text()},
      [](const nlohmann::json& object) { return api::ParseSandbox(object); }, sandboxes);
  kube::Reflector<api::SnapshotTemplate> template_reflector(
      *transport,
      {.type = {api::kGroup, api::kVersion, "snapshottemplates", true},
       .field_selector = "status.nodeName=" + node.text()},
      [](const nlohmann::json& object) { return api::ParseSnapshotTemplate(object); },
      template_objects);
  kube::ControllerLoop template_loop(
      {.name = "template", .workers = 2}, template_queue,
      [&keeper](const std::string& uid) { return keeper.Reconcile(uid); });
  kube::ControllerLoop loop({.name = "sandbox", .workers = flags.workers}, queue,
                            [&agent](const std::string& uid) { return agent.Reconcile(uid); });

  RegisterAgentMetrics(metrics::Registry::Default(), agent);
  DORMOUSE_ASSIGN(const auto local, ControlServer::Listen(agent, {.paths = paths}));
  DORMOUSE_ASSIGN(const auto health, http::Server::Listen(flags.health_address));
  http::ServeProbes(*health, SignsOfLife(heartbeat, agent),
                    {{"synced",
                      [&sandboxes]() -> Result<> {
                        if (sandboxes.Synced()) return {};
                        return Fail(ErrorCode::kUnavailable, "sandboxes are not yet known");
                      }}},
                    metrics::Registry::Default());
  DORMOUSE_ASSIGN(const auto scrape, http::Server::Listen(flags.metrics_address));
  http::ServeProbes(*scrape, {}, {}, metrics::Registry::Default());
  local->Start();
  health->Start();
  scrape->Start();
  events.Start();
  heartbeat.Start();
  publisher.Start();
  reflector.Start();
  template_reflector.Start();
  Ticker digests(5s, [&machine] {
    if (auto refreshed = machine->images().RefreshDigests(); !refreshed) {
      log::Warning("images cannot be read", {{"error", refreshed.error().message()}});
    }
  });
  Ticker disks(1s, [&agent] { agent.TendDisks(); });
  Ticker activity(1s, [&agent] { agent.TendActivity(); });
  // What is used again is faulted in from the page cache: a millisecond, twice a minute.
  Ticker footprint(30s, [] {
    if (auto dropped = DropUnusedPages(); !dropped) {
      log::Warning("unused pages stay", {{"error", dropped.error().message()}});
    }
  });

  bool stop = false;
  while (!stop && !(sandboxes.Synced() && template_objects.Synced()))
    stop = WaitForStop(signals.get(), 20ms);
  if (!stop) {
    for (const std::string& uid : agent.KnownUids()) queue.Add(uid, kube::Priority::kLow);
    for (const std::string& uid : keeper.KnownUids()) template_queue.Add(uid);
    loop.Start();
    template_loop.Start();
    memory_keeper.Start();
    log::Info("looking after sandboxes", {{"node", node.text()}, {"sandboxes", sandboxes.Size()}});
    while (!WaitForStop(signals.get(), 3600s)) {
    }
  }
  log::Info("stopping; running VMs go on");
  reflector.Stop();
  template_reflector.Stop();
  memory_keeper.Stop();
  template_loop.Stop(kDrain);
  loop.Stop(kDrain);
  heartbeat.Stop();
  publisher.Stop();
  local->Stop();
  agent_slot = nullptr;
  return {};
}

}  // namespace dormouse
