#include "node-agent/node/node_status.h"

#include <algorithm>

#include "src/common/api/reasons.h"
#include "src/common/api/sandbox.h"

namespace dormouse {
namespace {

namespace reasons = api::reasons;

constexpr int64_t kFinestDiskStep = 64LL << 20;
constexpr auto kRepairIsNews = std::chrono::minutes(10);

int64_t RoundUp(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

api::Condition Make(const char* type, bool holds, std::string_view reason, std::string message) {
  api::Condition condition;
  condition.type = type;
  condition.status = holds ? api::ConditionStatus::kTrue : api::ConditionStatus::kFalse;
  condition.reason = reason;
  condition.message = std::move(message);
  return condition;
}

api::Condition HypervisorReady(const NodeFacts& facts, const Result<vmm::VmmVersion>& hypervisor) {
  if (!hypervisor) {
    return Make(api::condition::kHypervisorReady, false, reasons::kHypervisorUnsupported,
                hypervisor.error().message());
  }
  if (!facts.kvm) {
    return Make(api::condition::kHypervisorReady, false, reasons::kHypervisorUnsupported,
                "/dev/kvm cannot be used on this node");
  }
  return Make(api::condition::kHypervisorReady, true, reasons::kReady,
              "cloud-hypervisor " + hypervisor->build);
}

// A few of them: a person looks at the first.
std::string WhoStandsStill(const std::vector<std::string>& names) {
  constexpr size_t kNamed = 3;
  std::string text;
  for (size_t i = 0; i < names.size() && i < kNamed; ++i) text += (i == 0 ? "" : ", ") + names[i];
  if (names.size() > kNamed) text += " and " + std::to_string(names.size() - kNamed) + " more";
  return text.empty() ? "" : "; the first is whose disk takes most: " + text;
}

api::Condition DiskPressure(const NodeObservation& seen) {
  switch (seen.disk) {
    case NodeDisk::kFine:
      break;
    case NodeDisk::kRefuseNew:
      return Make(api::condition::kDiskPressure, true, reasons::kNoCapacity,
                  "the state directory's file system is below its reserve: nothing new starts");
    case NodeDisk::kPauseGuests:
      return Make(
          api::condition::kDiskPressure, true, reasons::kNodeDiskFull,
          "the state directory's file system is full: guests are paused until there is room" +
              WhoStandsStill(seen.stand_still));
  }
  return Make(api::condition::kDiskPressure, false, reasons::kHealthy, "");
}

api::Condition NetworkReady(const net::NodeNetState& network, WallTime now) {
  if (network.broken) {
    return Make(api::condition::kNetworkReady, false, reasons::kHostError,
                network.broken->message());
  }
  if (network.repairs != 0 && now - network.repaired_at < kRepairIsNews) {
    return Make(api::condition::kNetworkReady, true, reasons::kRulesRepaired,
                network.repaired + " was missing and is back, " + std::to_string(network.repairs) +
                    " times since the agent's start: a program on this node takes away what is "
                    "not its own");
  }
  return Make(api::condition::kNetworkReady, true, reasons::kReady, "");
}

api::Condition Ready(const api::Condition& hypervisor, const api::Condition& network) {
  for (const api::Condition* part : {&hypervisor, &network}) {
    if (part->status != api::ConditionStatus::kTrue)
      return Make(api::condition::kReady, false, part->reason, part->message);
  }
  return Make(api::condition::kReady, true, reasons::kReady, "");
}

/// What the sandboxes have, and what all could have. Disks count with their virtual sizes, against
/// what the file system has above the reserve for all of them, times the overcommit.
void SetAmounts(const NodeFacts& facts, const NodeAllowance& allowance, const NodeObservation& seen,
                api::SandboxNodeStatus* status) {
  api::NodeAmount& allocated = status->allocated;
  int64_t written = 0;
  for (const SandboxSummary& sandbox : seen.sandboxes) {
    allocated.disk_bytes += sandbox.disk_bytes;
    written += sandbox.disk_allocated_bytes;
    if (sandbox.running) {
      allocated.vcpus += sandbox.vcpus;
      allocated.memory_bytes += sandbox.memory_bytes;
      ++allocated.running;
    } else if (sandbox.phase == api::phase::kSuspended) {
      ++allocated.sleeping;
    }
  }
  const auto total = static_cast<int64_t>(seen.space.total_bytes);
  const auto available = static_cast<int64_t>(seen.space.available_bytes);
  const int64_t step = std::max(kFinestDiskStep, total / 100 / kFinestDiskStep * kFinestDiskStep);
  const int64_t others = std::max<int64_t>(0, total - available - written);
  const auto reserve = static_cast<int64_t>(allowance.reserve_disk_bytes);

  api::NodeAmount& capacity = status->capacity;
  capacity.vcpus = static_cast<int64_t>(std::max(0, facts.cpus - allowance.reserve_cpus)) *
                   std::max(1, allowance.cpu_overcommit);
  capacity.memory_bytes = std::max<int64_t>(0, facts.memory_bytes - allowance.reserve_memory_bytes);
  capacity.disk_bytes = std::max<int64_t>(0, total - reserve - RoundUp(others, step)) *
                        std::max(1, allowance.disk_overcommit);
  capacity.running = allowance.max_running;
  capacity.sleeping = allowance.max_sleeping;
}

}  // namespace

api::SandboxNodeStatus ComputeNodeStatus(const NodeFacts& facts, const NodeAllowance& allowance,
                                         const std::string& endpoint, const NodeObservation& seen,
                                         const api::Conditions& before, WallTime now) {
  api::SandboxNodeStatus status;
  SetAmounts(facts, allowance, seen, &status);
  if (seen.hypervisor) {
    status.hypervisor = "cloud-hypervisor";
    status.hypervisor_version = seen.hypervisor->Short();
  }
  status.kernel_version = facts.kernel_version;
  status.cpu_model = facts.cpu_model;
  status.file_system = facts.file_system;
  status.reflink = facts.reflink;
  status.endpoint = endpoint;
  status.images = seen.images;
  std::sort(status.images.begin(), status.images.end(),
            [](const api::NodeImage& a, const api::NodeImage& b) { return a.name < b.name; });
  status.templates = seen.templates;
  std::sort(status.templates.begin(), status.templates.end());

  const api::Condition hypervisor = HypervisorReady(facts, seen.hypervisor);
  const api::Condition network = NetworkReady(seen.network, now);
  // The API keeps whole seconds: what is read back must compare equal.
  const WallTime stamp = std::chrono::floor<std::chrono::seconds>(now);
  for (api::Condition condition :
       {Ready(hypervisor, network), DiskPressure(seen), hypervisor, network}) {
    if (const api::Condition* known = api::FindCondition(before, condition.type)) {
      status.conditions.push_back(*known);
    }
    api::SetCondition(&status.conditions, std::move(condition), stamp);
  }
  return status;
}

bool DifferOnlyInDisk(const api::SandboxNodeStatus& a, const api::SandboxNodeStatus& b) {
  if (a == b) return false;
  api::SandboxNodeStatus adjusted = a;
  adjusted.capacity.disk_bytes = b.capacity.disk_bytes;
  adjusted.allocated.disk_bytes = b.allocated.disk_bytes;
  return adjusted == b;
}

}  // namespace dormouse
