#include "node-agent/serve/agent_metrics.h"

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "src/common/api/sandbox.h"

namespace dormouse {
namespace {

constexpr std::array kPhases = {
    api::phase::kPending,    api::phase::kScheduled,  api::phase::kStarting, api::phase::kRunning,
    api::phase::kSuspending, api::phase::kSuspended,  api::phase::kResuming, api::phase::kFailed,
    api::phase::kFinished,   api::phase::kTerminating};
constexpr char kUnknown[] = "Unknown";

class AgentMetrics {
 public:
  AgentMetrics(metrics::Registry& registry, const AgentView& view)
      : view_(view),
        running_(registry.MakeGauge("dormouse_sandboxes_running",
                                    "Sandboxes that hold vCPUs and memory now.")),
        vcpus_(
            registry.MakeGauge("dormouse_sandboxes_vcpus", "vCPUs that running sandboxes hold.")),
        memory_(registry.MakeGauge("dormouse_sandboxes_memory_bytes",
                                   "Memory that running sandboxes were given.")),
        disk_(registry.MakeGauge("dormouse_sandboxes_disk_allocated_bytes",
                                 "What sandboxes take on the node's file system.")),
        restarts_(registry.MakeCounter("dormouse_sandbox_restarts_total",
                                       "Restarts of sandboxes seen since the agent started.")) {
    for (const char* phase : kPhases) phases_[phase] = MakePhase(registry, phase);
    phases_[kUnknown] = MakePhase(registry, kUnknown);
  }

  void Refresh() {
    const std::lock_guard lock(mutex_);
    std::map<std::string, double> count;
    std::map<std::string, int> restarts;
    double running = 0;
    double vcpus = 0;
    double memory = 0;
    double disk = 0;
    for (const SandboxSummary& sandbox : view_.List()) {
      ++count[phases_.contains(sandbox.phase) ? sandbox.phase : kUnknown];
      disk += static_cast<double>(sandbox.disk_allocated_bytes);
      restarts[sandbox.uid] = sandbox.restart_count;
      // One that was there when this agent started had its restarts before.
      const auto found = seen_restarts_.find(sandbox.uid);
      const int before = found != seen_restarts_.end() ? found->second
                         : first_                      ? sandbox.restart_count
                                                       : 0;
      if (sandbox.restart_count > before) restarts_.Increment(sandbox.restart_count - before);
      if (!sandbox.running) continue;
      ++running;
      vcpus += sandbox.vcpus;
      memory += static_cast<double>(sandbox.memory_bytes);
    }
    seen_restarts_ = std::move(restarts);
    first_ = false;
    for (const auto& [phase, gauge] : phases_) gauge.Set(count[phase]);
    running_.Set(running);
    vcpus_.Set(vcpus);
    memory_.Set(memory);
    disk_.Set(disk);
  }

 private:
  static metrics::Gauge MakePhase(metrics::Registry& registry, const char* phase) {
    return registry.MakeGauge("dormouse_sandboxes", "Sandboxes of this node by phase.",
                              {{"phase", phase}});
  }

  const AgentView& view_;
  std::mutex mutex_;
  std::map<std::string, metrics::Gauge> phases_;
  metrics::Gauge running_, vcpus_, memory_, disk_;
  metrics::Counter restarts_;
  std::map<std::string, int> seen_restarts_;  ///< by UID
  bool first_ = true;
};

}  // namespace

void RegisterAgentMetrics(metrics::Registry& registry, const AgentView& view) {
  auto state = std::make_shared<AgentMetrics>(registry, view);
  registry.BeforeText([state] { state->Refresh(); });
}

}  // namespace dormouse
