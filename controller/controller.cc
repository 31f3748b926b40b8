#include "controller/controller.h"

#include <array>
#include <atomic>
#include <nlohmann/json.hpp>
#include <utility>

#include "controller/lifecycle/sandbox_api.h"
#include "controller/lifecycle/sandbox_controller.h"
#include "controller/nodes/node_controller.h"
#include "controller/placement/scheduler.h"
#include "controller/stores.h"
#include "controller/templates/template_api.h"
#include "controller/templates/template_controller.h"
#include "src/common/base/json_text.h"
#include "src/common/base/metrics.h"
#include "src/common/kube/client.h"
#include "src/common/kube/controller_loop.h"
#include "src/common/kube/reflector.h"
#include "src/common/kube/work_queue.h"

namespace dormouse::controller {
namespace {

using nlohmann::json;

/// Keeps of a sandbox what the controller reads: 100,000 of them are held.
Result<api::Sandbox> DecodeSandbox(const json& object) {
  DORMOUSE_ASSIGN(api::Sandbox sandbox, api::ParseSandbox(object));
  sandbox.spec.workload = {};
  sandbox.spec.network = {};
  sandbox.meta.labels.clear();
  std::erase_if(sandbox.meta.annotations, [](const auto& annotation) {
    return annotation.first != api::kNodeIsGoneAnnotation &&
           annotation.first != api::kIdleSuspendAnnotation;
  });
  sandbox.status.network = {};
  sandbox.status.vm = {};
  sandbox.status.conditions.shrink_to_fit();
  return sandbox;
}

Result<kube::LeaseRecord> DecodeLease(const json& object) {
  return kube::ParseLease(JsonText(object));
}

template <typename T>
struct Cache {
  using Decode = typename kube::Reflector<T>::Decode;
  Cache(kube::HttpTransport& transport, kube::ResourceType type, std::string ns, Decode decode)
      : name(type.plural),
        reflector(transport, Spec(std::move(type), std::move(ns)), std::move(decode), store) {}
  static kube::WatchSpec Spec(kube::ResourceType type, std::string ns) {
    kube::WatchSpec spec;
    spec.type = std::move(type);
    spec.ns = std::move(ns);
    return spec;
  }
  std::string name;
  kube::Store<T> store;
  kube::Reflector<T> reflector;
};

kube::ClientOptions ClientOptionsOf() {
  kube::ClientOptions options;
  options.field_manager = api::kControllerManager;
  return options;
}

kube::WorkQueueOptions QueueOptions(const char* name) {
  kube::WorkQueueOptions options;
  options.name = name;
  return options;
}

kube::ControllerLoopOptions LoopOptions(const char* name, int workers) {
  kube::ControllerLoopOptions options;
  options.name = name;
  options.workers = workers;
  return options;
}

}  // namespace

struct Controller::Parts {
  Parts(std::shared_ptr<kube::HttpTransport> given, const Options& options,
        kube::EventRecorder& events)
      : transport(std::move(given)),
        client(transport, ClientOptionsOf()),
        sandboxes(*transport, kSandboxes, "", DecodeSandbox),
        nodes(*transport, kSandboxNodes, "", api::ParseSandboxNode),
        templates(*transport, kSnapshotTemplates, "", api::ParseSnapshotTemplate),
        kubernetes_nodes(*transport, kube::types::kNodes, "", ParseKubernetesNode),
        leases(*transport, kube::types::kLeases, options.node_lease_namespace, DecodeLease),
        sandbox_queue(QueueOptions("sandbox")),
        node_queue(QueueOptions("node")),
        template_queue(QueueOptions("template")),
        scheduler([this](const kube::ObjectKey& key) { return sandboxes.store.Get(key); },
                  [this](const std::string& ns, const std::string& name) {
                    return templates.store.Get({ns, name});
                  },
                  Clock::System(), {options.refusal_memory}),
        health(Clock::System(), options.node_lease_duration),
        api(MakeSandboxApi(client, events)),
        sandbox_controller(sandboxes.store, scheduler, health, *api, sandbox_queue, Clock::System(),
                           {}),
        node_controller(
            {nodes.store, kubernetes_nodes.store, leases.store, sandboxes.store, scheduler, health,
             node_queue, sandbox_queue},
            options.node_lease_namespace,
            [this](const auto& node, const auto& kubernetes) { return Identify(node, kubernetes); },
            [this, ns = options.node_lease_namespace](const auto& node, const auto& lease) {
              return SayLost(node, {ns, NodeLeaseName(node.meta.name)}, lease);
            }),
        template_api(MakeTemplateApi(client, events)),
        template_controller(templates.store, sandboxes.store, health, *template_api, template_queue,
                            Clock::System(), {}),
        sandbox_loop(LoopOptions("sandbox", options.workers), sandbox_queue,
                     [this](const std::string& key) {
                       if (key != kClockKey) ++reconciles;
                       return sandbox_controller.Reconcile(key);
                     }),
        node_loop(LoopOptions("node", 1), node_queue,
                  [this](const std::string& key) { return node_controller.Reconcile(key); }),
        template_loop(LoopOptions("template", 1), template_queue, [this](const std::string& key) {
          return template_controller.Reconcile(key);
        }) {
    templates.store.Subscribe([this](const auto& change) { OnTemplate(change.ref.key); });
    auto waiting = metrics::Registry::Default().MakeGauge("dormouse_sandboxes_waiting",
                                                          "Sandboxes that are not placed yet.");
    metrics::Registry::Default().BeforeText(
        [this, waiting] { waiting.Set(static_cast<double>(scheduler.Waiting())); });
  }

  Result<> Identify(const api::SandboxNode& node, const KubernetesNode& kubernetes) {
    auto applied =
        client.Apply(kSandboxNodes, node.meta.key(), IdentityApplyBody(node, kubernetes));
    if (!applied) return Fail(applied.error());
    return {};
  }

  Result<> SayLost(const api::SandboxNode& node, const kube::ObjectKey& lease_key,
                   const kube::ResourceVersion& lease) {
    // The agent renews its Lease before it takes our word back: seen in the wrong order, it would
    // be said again, and stand.
    const auto live = client.Get(kube::types::kLeases, lease_key);
    if (!live && live.error().code() != ErrorCode::kNotFound) return Fail(live.error());
    if (live) {
      DORMOUSE_ASSIGN(const auto read, kube::ParseLease(*live));
      if (read.ref.resource_version != lease) return {};
    }
    const json status = {
        {"conditions", api::ConditionsToJson(NodeLostConditions(node, Clock::System().WallNow()))}};
    kube::ApplyOptions apply;
    apply.subresource = "status";
    apply.resource_version = node.meta.resource_version;
    auto applied = client.Apply(kSandboxNodes, node.meta.key(),
                                api::StatusApplyBody("SandboxNode", node.meta, status), apply);
    if (!applied) return Fail(applied.error());
    return {};
  }

  /// Those that start from the template may be placed now, or hold something else than was thought.
  void OnTemplate(const kube::ObjectKey& key) {
    scheduler.TouchTemplates();
    for (const auto& sandbox : sandboxes.store.ByIndex(kByTemplate, key.ToString())) {
      scheduler.Observe(sandbox->meta.key());
    }
    sandbox_queue.Add(kRetryKey);
  }

  std::shared_ptr<kube::HttpTransport> transport;
  kube::Client client;
  Cache<api::Sandbox> sandboxes;
  Cache<api::SandboxNode> nodes;
  Cache<api::SnapshotTemplate> templates;
  Cache<KubernetesNode> kubernetes_nodes;
  Cache<kube::LeaseRecord> leases;
  kube::WorkQueue sandbox_queue, node_queue, template_queue;
  Scheduler scheduler;
  NodeHealth health;
  std::unique_ptr<SandboxApi> api;
  SandboxController sandbox_controller;
  NodeController node_controller;
  std::unique_ptr<TemplateApi> template_api;
  TemplateController template_controller;
  std::atomic<uint64_t> reconciles{0};
  kube::ControllerLoop sandbox_loop, node_loop, template_loop;
};

Controller::Controller(std::shared_ptr<kube::HttpTransport> transport, const Options& options,
                       kube::EventRecorder& events)
    : parts_(std::make_unique<Parts>(std::move(transport), options, events)) {}

Controller::~Controller() {
  // The caches call into everything else: they end first.
  parts_->sandboxes.reflector.Stop();
  parts_->nodes.reflector.Stop();
  parts_->templates.reflector.Stop();
  parts_->kubernetes_nodes.reflector.Stop();
  parts_->leases.reflector.Stop();
}

void Controller::StartCaches() {
  parts_->templates.reflector.Start();
  parts_->leases.reflector.Start();
  parts_->kubernetes_nodes.reflector.Start();
  parts_->nodes.reflector.Start();
  parts_->sandboxes.reflector.Start();
}

bool Controller::Synced(std::string* missing) const {
  const std::array<std::pair<bool, const std::string*>, 5> caches = {{
      {parts_->sandboxes.store.Synced(), &parts_->sandboxes.name},
      {parts_->nodes.store.Synced(), &parts_->nodes.name},
      {parts_->templates.store.Synced(), &parts_->templates.name},
      {parts_->kubernetes_nodes.store.Synced(), &parts_->kubernetes_nodes.name},
      {parts_->leases.store.Synced(), &parts_->leases.name},
  }};
  for (const auto& [synced, name] : caches) {
    if (synced) continue;
    if (missing != nullptr) *missing = *name;
    return false;
  }
  return true;
}

uint64_t Controller::Reconciles() const {
  return parts_->reconciles;
}

void Controller::StartWorking() {
  parts_->node_controller.Prime();
  parts_->node_loop.Start();
  parts_->sandbox_queue.Add(kClockKey);
  parts_->sandbox_loop.Start();
  parts_->template_loop.Start();
}

void Controller::StopWorking() {
  parts_->sandbox_loop.Stop(std::chrono::seconds(20));
  parts_->template_loop.Stop(std::chrono::seconds(5));
  parts_->node_loop.Stop(std::chrono::seconds(5));
}

}  // namespace dormouse::controller
