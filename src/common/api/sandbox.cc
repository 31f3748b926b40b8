#include "src/common/api/sandbox.h"

#include <nlohmann/json.hpp>

#include "src/common/api/field_reader.h"
#include "src/common/base/time.h"
#include "src/common/base/units.h"

namespace dormouse::api {
namespace {

using nlohmann::json;

constexpr int64_t kMemoryStep = kMiB;
constexpr int64_t kSmallestMemory = 64 * kMiB;
constexpr int64_t kLargestMemory = 16LL << 40;
constexpr int64_t kLargestDisk = 64LL << 40;
constexpr int64_t kLongestGrace = 3600;  // seconds

/// 0 where there is none that can be read.
std::chrono::milliseconds ReadMilliseconds(const FieldReader& object, const char* key) {
  const auto time = ParseDuration(object.Text(key)).value_or(std::chrono::nanoseconds(0));
  return std::chrono::duration_cast<std::chrono::milliseconds>(time);
}

void ReadSource(const FieldReader& spec, SandboxSpec* into) {
  const FieldReader source = spec.Object("source");
  into->image = source.Object("image").Text("name");
  into->snapshot_template = source.Object("snapshotTemplate").Text("name");
  if (into->image.empty() == into->snapshot_template.empty()) {
    spec.Refuse("source", "must have exactly one of image.name and snapshotTemplate.name");
  }
}

void ReadResources(const FieldReader& spec, SandboxSpec* into) {
  const FieldReader resources = spec.Object("resources");
  if (!resources.present()) return;
  if (const auto cpu = resources.Integer("cpu", 1, 64)) into->asked.vcpus = static_cast<int>(*cpu);
  const auto memory = resources.Amount(
      "memory", kSmallestMemory, kLargestMemory,
      "an amount of memory from 64Mi to 16Ti, with its unit, such as 512Mi or 2Gi");
  // VMMs have whole MiB only.
  if (memory) into->asked.memory_bytes = (*memory + kMemoryStep - 1) / kMemoryStep * kMemoryStep;
  const Resources defaults;
  into->resources = Resources{into->asked.vcpus.value_or(defaults.vcpus),
                              into->asked.memory_bytes.value_or(defaults.memory_bytes)};
}

void ReadWorkload(const FieldReader& spec, Workload* into) {
  into->command = spec.TextList("command");
  into->args = spec.TextList("args");
  spec.ForEach("env", [into](const FieldReader& variable) {
    EnvVar next{variable.Text("name"), variable.Text("value")};
    if (next.name.empty()) variable.Refuse("name", "must not be empty");
    into->env.push_back(std::move(next));
  });
  into->working_dir = spec.Text("workingDir");
  into->user = spec.Text("user");
}

std::vector<std::string> ReadCidrs(const FieldReader& network, const char* key) {
  std::vector<std::string> ranges;
  network.ForEach(key, [&ranges](const FieldReader& entry) {
    std::string range = entry.Text("cidr");
    if (range.empty()) entry.Refuse("cidr", "must be an address range such as 203.0.113.0/24");
    ranges.push_back(std::move(range));
  });
  return ranges;
}

void ReadLifecycle(const FieldReader& spec, SandboxSpec* into) {
  if (const FieldReader idle = spec.Object("idle"); idle.present()) {
    const auto timeout = idle.Duration("timeout", std::chrono::seconds(1));
    if (!idle.Has("timeout")) idle.Refuse("timeout", "must be there");
    into->idle = Idle{timeout.value_or(std::chrono::seconds(0)),
                      idle.OneOf<IdleAction>("action", {{"Suspend", IdleAction::kSuspend},
                                                        {"Delete", IdleAction::kDelete}}),
                      idle.Flag("resumeOnAccess", false)};
  }
  const FieldReader lifecycle = spec.Object("lifecycle");
  into->lifecycle.shutdown_time = lifecycle.Instant("shutdownTime");
  into->lifecycle.delete_at_shutdown =
      lifecycle.OneOf<bool>("shutdownPolicy", {{"Retain", false}, {"Delete", true}});
  into->lifecycle.ttl_after_finished =
      lifecycle.Duration("ttlAfterFinished", std::chrono::seconds(0));
}

void ReadNetwork(const FieldReader& spec, NetworkSpec* into) {
  const FieldReader network = spec.Object("network");
  into->egress = network.OneOf<Egress>(
      "egress",
      {{"Restricted", Egress::kRestricted}, {"Open", Egress::kOpen}, {"None", Egress::kNone}});
  into->allow_cidrs = ReadCidrs(network, "allow");
  into->deny_cidrs = ReadCidrs(network, "deny");
  network.ForEach("ports", [into](const FieldReader& entry) {
    Port port;
    port.name = entry.Text("name");
    port.port = static_cast<int>(entry.Integer("port", 1, 65535).value_or(0));
    port.protocol = entry.Text("protocol", "TCP");
    if (port.port == 0) entry.Refuse("port", "must be a port number from 1 to 65535");
    into->ports.push_back(std::move(port));
  });
}

SandboxSpec ReadSpec(const FieldReader& spec) {
  SandboxSpec result;
  ReadSource(spec, &result);
  ReadResources(spec, &result);
  result.disk_bytes = spec.Object("disk").Amount(
      "size", kMiB, kLargestDisk,
      "an amount of storage from 1Mi to 64Ti, with its unit, such as 5Gi");
  ReadWorkload(spec, &result.workload);
  const FieldReader dns = spec.Object("dns");
  result.dns = {dns.TextList("nameservers"), dns.TextList("searches"), dns.TextList("options")};
  result.operating_mode = spec.OneOf<OperatingMode>(
      "operatingMode", {{OperatingModeName(OperatingMode::kRunning), OperatingMode::kRunning},
                        {OperatingModeName(OperatingMode::kSuspended), OperatingMode::kSuspended},
                        {OperatingModeName(OperatingMode::kStopped), OperatingMode::kStopped}});
  // As records keep it: what was carried out must not look older than it is.
  if (const auto restarted_at = spec.Instant("restartedAt"))
    result.restarted_at = std::chrono::floor<std::chrono::microseconds>(*restarted_at);
  if (const auto grace = spec.Integer("terminationGracePeriodSeconds", 0, kLongestGrace))
    result.termination_grace = std::chrono::seconds(*grace);
  if (spec.Has("restartPolicy")) {
    result.restart_policy =
        spec.OneOf<RestartPolicy>("restartPolicy", {{"Never", RestartPolicy::kNever},
                                                    {"OnFailure", RestartPolicy::kOnFailure},
                                                    {"Always", RestartPolicy::kAlways}});
  }
  result.boot_snapshot = spec.OneOf<bool>("bootSnapshot", {{"Auto", true}, {"Never", false}});
  ReadLifecycle(spec, &result);
  ReadNetwork(spec, &result.network);
  result.node_selector = spec.TextMap("nodeSelector");
  spec.ForEach("tolerations", [&result](const FieldReader& entry) {
    result.tolerations.push_back({entry.Text("key"), entry.Text("operator", "Equal"),
                                  entry.Text("value"), entry.Text("effect")});
  });
  return result;
}

SandboxStatus ReadSandboxStatus(const FieldReader& status) {
  SandboxStatus result;
  result.observed_generation = status.Integer("observedGeneration", 0, INT64_MAX).value_or(0);
  result.phase = status.Text("phase");
  result.node_name = status.Text("nodeName");
  result.conditions = ParseConditions(status.List("conditions"));
  if (const FieldReader resources = status.Object("resources"); resources.present()) {
    Resources effective;
    effective.vcpus =
        static_cast<int>(resources.Integer("cpu", 1, 1 << 20).value_or(effective.vcpus));
    effective.memory_bytes = resources.Bytes("memory").value_or(effective.memory_bytes);
    result.resources = effective;
    result.disk_bytes = resources.Bytes("disk");
  }
  if (const auto code = status.Integer("exitCode", INT32_MIN, INT32_MAX)) {
    result.exit_code = static_cast<int>(*code);
  }
  result.started_at = status.Time("startedAt");
  result.suspended_at = status.Time("suspendedAt");
  result.finished_at = status.Time("finishedAt");
  result.last_active_time = status.Time("lastActiveTime");
  result.idle_deadline = status.Time("idleDeadline");
  result.restart_count = static_cast<int>(status.Integer("restartCount", 0, INT32_MAX).value_or(0));
  const FieldReader network = status.Object("network");
  result.network = {network.Text("nodeIP"), network.Text("hostIP"), network.Text("guestIP")};
  const FieldReader vm = status.Object("vm");
  result.vm.hypervisor = vm.Text("hypervisor");
  result.vm.version = vm.Text("version");
  result.vm.start_mode = vm.Text("startMode");
  if (vm.Has("bootToReady")) {
    const auto time = ParseDuration(vm.Text("bootToReady"));
    if (!time) vm.Refuse("bootToReady", "must be a duration such as 480ms");
    if (time)
      result.vm.boot_to_ready = std::chrono::duration_cast<std::chrono::milliseconds>(*time);
  }
  if (const FieldReader snapshot = status.Object("snapshot"); snapshot.present()) {
    result.snapshot = SandboxStatus::Snapshot{};
    result.snapshot->memory_bytes = snapshot.Integer("memoryBytes", 0, INT64_MAX).value_or(0);
    result.snapshot->written_bytes = snapshot.Integer("writtenBytes", 0, INT64_MAX).value_or(0);
    result.snapshot->generation = snapshot.Integer("generation", 0, INT64_MAX).value_or(0);
    result.snapshot->pause_window = ReadMilliseconds(snapshot, "pauseWindow");
    if (const FieldReader stages = snapshot.Object("stages"); stages.present()) {
      CaptureStages& read = result.snapshot->stages.emplace();
      for (const auto& [name, took] : kCaptureStages) read.*took = ReadMilliseconds(stages, name);
    }
  }
  if (const FieldReader storage = status.Object("storage"); storage.present()) {
    result.storage = SandboxStatus::Storage{
        storage.Integer("cowUsedBytes", 0, INT64_MAX).value_or(0),
        static_cast<int>(storage.Integer("cowUsedPercent", 0, INT32_MAX).value_or(0))};
  }
  return result;
}

}  // namespace

const Condition* FindConditionNow(const Sandbox& sandbox, const char* type) {
  const Condition* condition = FindCondition(sandbox.status.conditions, type);
  return condition != nullptr && condition->observed_generation == sandbox.meta.generation
             ? condition
             : nullptr;
}

bool IsTrueNow(const Sandbox& sandbox, const char* type) {
  const Condition* condition = FindConditionNow(sandbox, type);
  return condition != nullptr && condition->status == ConditionStatus::kTrue;
}

const char* OperatingModeName(OperatingMode mode) {
  switch (mode) {
    case OperatingMode::kRunning:
      break;
    case OperatingMode::kSuspended:
      return "Suspended";
    case OperatingMode::kStopped:
      return "Stopped";
  }
  return "Running";
}

std::string IdleSuspendMark(const kube::ObjectMeta& meta, int64_t generation) {
  return meta.uid + "/" + std::to_string(generation);
}

bool IsIdleSuspended(const Sandbox& sandbox) {
  const auto mark = sandbox.meta.annotations.find(kIdleSuspendAnnotation);
  return sandbox.spec.operating_mode == OperatingMode::kSuspended &&
         mark != sandbox.meta.annotations.end() &&
         mark->second == IdleSuspendMark(sandbox.meta, sandbox.meta.generation);
}

Result<Sandbox> ParseSandbox(const json& object) {
  Sandbox sandbox;
  DORMOUSE_ASSIGN(sandbox.meta, kube::ParseObjectMeta(object));
  // Items of a list carry no kind.
  if (const auto kind = object.find("kind"); kind != object.end() && *kind != "Sandbox") {
    return Fail(ErrorCode::kCorrupt, sandbox.meta.key().ToString() + ": kind is not Sandbox");
  }
  DORMOUSE_ASSIGN(sandbox.uid, SandboxUid::Parse(sandbox.meta.uid));
  std::optional<Error> error;
  const FieldReader top(&object, "", &error);
  sandbox.spec = ReadSpec(top.Object("spec"));
  sandbox.status = ReadSandboxStatus(top.Object("status"));
  if (error) return Fail(*error);
  return sandbox;
}

}  // namespace dormouse::api
