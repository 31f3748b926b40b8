// The Sandbox resource (dormouse.dev/v1alpha1) as typed values. crds/dormouse.dev_sandboxes.yaml is
// the schema that users see; this is what of it the controller and the agent read and write.
//
// Plain values: copy and compare freely. Parsing is strict where a wrong value would be acted upon
// (kInvalid names the field), and forgiving towards fields that a newer version added.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/common/api/conditions.h"
#include "src/common/api/ids.h"
#include "src/common/kube/object_meta.h"

namespace dormouse::api {

inline constexpr char kGroup[] = "dormouse.dev";
inline constexpr char kVersion[] = "v1alpha1";
inline constexpr char kApiVersion[] = "dormouse.dev/v1alpha1";
/// Set by the controller before it places, removed by it when the agent has reported Released.
inline constexpr char kCleanupFinalizer[] = "dormouse.dev/node-cleanup";
/// A person's word that a node, and what ran there, is gone for good; its value is the node's name.
inline constexpr char kNodeIsGoneAnnotation[] = "dormouse.dev/node-is-gone";
/// The controller's mark on a sandbox that it has put to sleep for idleness: IdleSuspendMark.
inline constexpr char kIdleSuspendAnnotation[] = "dormouse.dev/idle-suspend";
/// Field managers of server-side apply.
inline constexpr char kControllerManager[] = "dormouse-controller";
inline constexpr char kAgentManager[] = "dormouse-agent";

namespace condition {
inline constexpr char kReady[] = "Ready";
inline constexpr char kScheduled[] = "Scheduled";
inline constexpr char kSuspended[] = "Suspended";
inline constexpr char kGuestReady[] = "GuestReady";
inline constexpr char kStorageHealthy[] = "StorageHealthy";
inline constexpr char kFinished[] = "Finished";
inline constexpr char kReleased[] = "Released";
/// Nothing has happened in it for idle.timeout; the controller acts upon it.
inline constexpr char kIdle[] = "Idle";
}  // namespace condition

namespace phase {
inline constexpr char kPending[] = "Pending";
inline constexpr char kScheduled[] = "Scheduled";
inline constexpr char kStarting[] = "Starting";
inline constexpr char kRunning[] = "Running";
inline constexpr char kSuspending[] = "Suspending";
inline constexpr char kSuspended[] = "Suspended";
inline constexpr char kResuming[] = "Resuming";
inline constexpr char kStopping[] = "Stopping";
inline constexpr char kStopped[] = "Stopped";
inline constexpr char kFailed[] = "Failed";
inline constexpr char kFinished[] = "Finished";
inline constexpr char kTerminating[] = "Terminating";
}  // namespace phase

enum class OperatingMode { kRunning, kSuspended, kStopped };
[[nodiscard]] const char* OperatingModeName(OperatingMode mode);
enum class RestartPolicy { kNever, kOnFailure, kAlways };
enum class Egress { kRestricted, kOpen, kNone };

struct Resources {
  int vcpus = 1;
  int64_t memory_bytes = 512LL << 20;
  bool operator==(const Resources&) const = default;
};

/// What of the resources the user wrote; the rest is a default, or what a template was frozen with.
struct AskedResources {
  std::optional<int> vcpus;
  std::optional<int64_t> memory_bytes;
  bool operator==(const AskedResources&) const = default;
};

struct EnvVar {
  std::string name, value;
  bool operator==(const EnvVar&) const = default;
};

/// What runs in the guest; empty command and args: an idle machine.
struct Workload {
  std::vector<std::string> command, args;
  std::vector<EnvVar> env;
  std::string working_dir, user;
  [[nodiscard]] bool empty() const { return command.empty() && args.empty(); }
  bool operator==(const Workload&) const = default;
};

struct Port {
  std::string name;
  int port = 0;
  std::string protocol = "TCP";
  bool operator==(const Port&) const = default;
};

struct NetworkSpec {
  Egress egress = Egress::kRestricted;
  std::vector<std::string> allow_cidrs, deny_cidrs;
  std::vector<Port> ports;
  bool operator==(const NetworkSpec&) const = default;
};

/// Of resolv.conf(5). What is empty is the node's, or the image's.
struct DnsSpec {
  std::vector<std::string> nameservers, searches, options;
  bool operator==(const DnsSpec&) const = default;
};

/// When it ends by itself.
struct Lifecycle {
  std::optional<WallTime> shutdown_time;
  bool delete_at_shutdown = false;  ///< else it is stopped
  std::optional<std::chrono::nanoseconds> ttl_after_finished;
  bool operator==(const Lifecycle&) const = default;
};

enum class IdleAction { kSuspend, kDelete };

/// What happens when nothing happens.
struct Idle {
  std::chrono::nanoseconds timeout{};
  IdleAction action = IdleAction::kSuspend;
  bool resume_on_access = false;
  bool operator==(const Idle&) const = default;
};

struct Toleration {
  std::string key, op = "Equal", value, effect;
  bool operator==(const Toleration&) const = default;
};

struct SandboxSpec {
  std::string image;                   ///< source.image.name; exactly one of the two is set
  std::string snapshot_template;       ///< source.snapshotTemplate.name
  std::optional<Resources> resources;  ///< what was asked for, completed by the defaults
  AskedResources asked;
  std::optional<int64_t> disk_bytes;  ///< virtual size; absent = the base's
  Workload workload;
  DnsSpec dns;
  OperatingMode operating_mode = OperatingMode::kRunning;
  std::optional<WallTime> restarted_at;  ///< a later one than before asks for a restart
  /// Between the workload's stop signal and its end.
  std::chrono::seconds termination_grace{30};
  /// Absent: RestartPolicyOf.
  std::optional<RestartPolicy> restart_policy;
  std::optional<Idle> idle;  ///< absent: never
  Lifecycle lifecycle;
  bool boot_snapshot = true;  ///< bootSnapshot: Auto
  NetworkSpec network;
  std::map<std::string, std::string> node_selector;
  std::vector<Toleration> tolerations;
  bool operator==(const SandboxSpec&) const = default;
};

/// The restart policy in force: a machine without a workload is there to be there.
[[nodiscard]] inline RestartPolicy RestartPolicyOf(const SandboxSpec& spec, bool has_workload) {
  return spec.restart_policy.value_or(has_workload ? RestartPolicy::kNever
                                                   : RestartPolicy::kAlways);
}

/// What the steps of a capture took, under the names that the status has for them. Memory and disk
/// are captured side by side.
struct CaptureStages {
  std::chrono::milliseconds prepare{0}, freeze{0}, pause{0}, state{0}, memory{0}, disk{0}, sync{0};
  bool operator==(const CaptureStages&) const = default;
};
struct CaptureStageName {
  const char* name;
  std::chrono::milliseconds CaptureStages::*took;
};
inline constexpr CaptureStageName kCaptureStages[] = {
    {"prepare", &CaptureStages::prepare}, {"freeze", &CaptureStages::freeze},
    {"pause", &CaptureStages::pause},     {"state", &CaptureStages::state},
    {"memory", &CaptureStages::memory},   {"disk", &CaptureStages::disk},
    {"sync", &CaptureStages::sync}};

/// The status as this version writes it. Fields of one writer only are sent by that writer:
/// see AgentStatusToJson and ControllerStatusToJson.
struct SandboxStatus {
  int64_t observed_generation = 0;
  std::string phase;
  std::string node_name;
  Conditions conditions;
  std::optional<Resources> resources;
  std::optional<int64_t> disk_bytes;  ///< the disk's virtual size, whoever chose it
  std::optional<int> exit_code;
  std::optional<WallTime> started_at, suspended_at, finished_at, last_active_time, idle_deadline;
  int restart_count = 0;
  struct Network {
    std::string node_ip, host_ip, guest_ip;
    bool operator==(const Network&) const = default;
  } network;
  struct Vm {
    std::string hypervisor, version, start_mode;
    std::optional<std::chrono::milliseconds> boot_to_ready;
    bool operator==(const Vm&) const = default;
  } vm;
  /// Of the last capture.
  struct Snapshot {
    int64_t memory_bytes = 0, written_bytes = 0;
    std::chrono::milliseconds pause_window{0};
    int64_t generation = 0;
    std::optional<CaptureStages> stages{};
    bool operator==(const Snapshot&) const = default;
  };
  std::optional<Snapshot> snapshot;
  struct Storage {
    int64_t cow_used_bytes = 0;
    int cow_used_percent = 0;
    bool operator==(const Storage&) const = default;
  };
  std::optional<Storage> storage;
  bool operator==(const SandboxStatus&) const = default;
};

struct Sandbox {
  kube::ObjectMeta meta;
  SandboxUid uid;
  SandboxSpec spec;
  SandboxStatus status;

  /// What it will run with: what was asked for, or the defaults (1 vCPU, 512 MiB).
  [[nodiscard]] Resources EffectiveResources() const {
    return spec.resources.value_or(Resources{});
  }
};

/// As FindCondition and IsTrue, where the condition speaks of the spec as it is now.
[[nodiscard]] const Condition* FindConditionNow(const Sandbox& sandbox, const char* type);
[[nodiscard]] bool IsTrueNow(const Sandbox& sandbox, const char* type);

/// The mark of a suspend for idleness. It names the object and the generation that the suspend made
/// of it, so that it means nothing on a copy, nor once its user has asked for something else.
[[nodiscard]] std::string IdleSuspendMark(const kube::ObjectMeta& meta, int64_t generation);
/// Whether it is to sleep because nothing happened in it, and not because a person said so.
[[nodiscard]] bool IsIdleSuspended(const Sandbox& sandbox);

/// kCorrupt: no object of ours. kInvalid: an object that admission should have refused; the message
/// names the field.
Result<Sandbox> ParseSandbox(const nlohmann::json& object);

/// The status fields that the agent owns after placement, for a forced apply by kAgentManager:
/// everything but nodeName and the Scheduled condition.
[[nodiscard]] nlohmann::json AgentStatusToJson(const SandboxStatus& status);
/// The fields that the controller sends, for a forced apply by kControllerManager: nodeName and
/// `phase` where they are not empty, and the conditions Scheduled and Ready where they are there.
/// Ready is the controller's until the sandbox is placed, and again while its node is lost.
[[nodiscard]] nlohmann::json ControllerStatusToJson(const SandboxStatus& status);

/// A whole apply patch of `/status`: apiVersion, kind, name, namespace, the resourceVersion that
/// was checked (a write without it could reach a successor of the same name), and `status`.
[[nodiscard]] std::string StatusApplyBody(const char* kind, const kube::ObjectMeta& checked,
                                          const nlohmann::json& status);

}  // namespace dormouse::api
