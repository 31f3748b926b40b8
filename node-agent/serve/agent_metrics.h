// What /metrics says of the sandboxes on this node, taken from the agent's view when it is asked
// for:
//   dormouse_sandboxes{phase}                        how many are in each phase
//   dormouse_sandboxes_running                       those that hold vCPUs and memory now
//   dormouse_sandboxes_{vcpus,memory_bytes}          what those hold
//   dormouse_sandboxes_disk_allocated_bytes          on the node's file system, of all
//   dormouse_sandbox_restarts_total                  restarts seen since the agent started
#pragma once

#include "node-agent/sandbox/view.h"
#include "src/common/base/metrics.h"

namespace dormouse {

/// Once. `view` must outlive the last Text() of `registry`.
void RegisterAgentMetrics(metrics::Registry& registry, const AgentView& view);

}  // namespace dormouse
