// The SnapshotTemplate resource (dormouse.dev/v1alpha1): a frozen instant of a sandbox, as typed
// values. crds/dormouse.dev_snapshottemplates.yaml is the schema that users see.
//
// Plain values: copy and compare freely. Parsing is strict as in sandbox.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/common/api/conditions.h"
#include "src/common/api/sandbox.h"
#include "src/common/kube/object_meta.h"

namespace dormouse::api {

namespace condition {
inline constexpr char kFailed[] = "Failed";
inline constexpr char kInUse[] = "InUse";
inline constexpr char kCompatible[] = "Compatible";
}  // namespace condition

namespace template_phase {
inline constexpr char kPending[] = "Pending";
inline constexpr char kCapturing[] = "Capturing";
inline constexpr char kReady[] = "Ready";
inline constexpr char kFailed[] = "Failed";
inline constexpr char kDeleting[] = "Deleting";
}  // namespace template_phase

/// The controller's mark that `sourceAfterCapture` was done: once, whatever the source does later.
/// Its value is the template's own UID, so that it says nothing of a copy.
inline constexpr char kSourceSettledAnnotation[] = "dormouse.dev/source-settled";
/// ... and on a source that it suspended for that: the UID of the template. Written together with
/// the mode, so that a controller that dies before the mark above does not suspend it twice.
inline constexpr char kSuspendedForAnnotation[] = "dormouse.dev/suspended-for";

enum class SourceAfterCapture { kResume, kSuspend, kDelete };
enum class DeletionPolicy { kDelete, kRetain };

struct SnapshotTemplateStatus {
  int64_t observed_generation = 0;
  std::string node_name;  ///< the source's node
  std::string phase;      ///< template_phase
  bool ready_to_use = false;
  std::optional<WallTime> creation_time;  ///< the instant that is frozen
  struct Failure {
    WallTime time{};
    std::string message;
    bool operator==(const Failure&) const = default;
  };
  std::optional<Failure> error;
  std::string source_uid;
  std::vector<std::string> nodes;  ///< SandboxNodes that hold a copy
  int references = 0;              ///< sandboxes that start or sleep from it
  int64_t memory_bytes = 0, disk_bytes = 0, allocated_bytes = 0;
  std::optional<std::chrono::milliseconds> pause_window;
  std::optional<Resources> resources;  ///< baked in; sandboxes from it have exactly these
  struct Compatibility {
    std::string hypervisor, version, format_version, cpu, kernel_digest, image_digest,
        guest_version;
    bool operator==(const Compatibility&) const = default;
  };
  std::optional<Compatibility> compatibility;
  Conditions conditions;
  bool operator==(const SnapshotTemplateStatus&) const = default;
};

struct SnapshotTemplate {
  kube::ObjectMeta meta;
  std::string source;  ///< the sandbox's name, in the same namespace
  SourceAfterCapture source_after_capture = SourceAfterCapture::kResume;
  std::chrono::nanoseconds failure_deadline = std::chrono::minutes(5);
  std::chrono::nanoseconds ttl{0};  ///< 0: until it is deleted by hand
  DeletionPolicy deletion_policy = DeletionPolicy::kDelete;
  SnapshotTemplateStatus status;
};

/// kCorrupt: no object of ours. kInvalid names the field.
Result<SnapshotTemplate> ParseSnapshotTemplate(const nlohmann::json& object);

/// The status fields that the agent owns once the template has a node, for a forced apply by
/// kAgentManager: everything but nodeName. Fields that are not known yet are left out.
[[nodiscard]] nlohmann::json AgentStatusToJson(const SnapshotTemplateStatus& status);
/// Those that the controller sends, where they are there: nodeName, phase, error and the conditions
/// Ready and Failed. All but nodeName are the agent's as soon as it has spoken.
[[nodiscard]] nlohmann::json ControllerStatusToJson(const SnapshotTemplateStatus& status);

}  // namespace dormouse::api
