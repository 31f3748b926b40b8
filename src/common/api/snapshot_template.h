// The SnapshotTemplate resource: a frozen instant of a sandbox, as far as placement reads it.
//
// Plain values. Parsing is strict as in sandbox.h.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/common/api/conditions.h"
#include "src/common/api/sandbox.h"
#include "src/common/kube/object_meta.h"

namespace dormouse::api {

struct SnapshotTemplateStatus {
  std::string node_name;  ///< the source's node
  std::string phase;      ///< Pending | Capturing | Ready | Failed | Deleting
  bool ready_to_use = false;
  std::string source_uid;
  std::vector<std::string> nodes;      ///< SandboxNodes that hold a copy
  std::optional<Resources> resources;  ///< baked in; sandboxes from it have exactly these
  Conditions conditions;
};

struct SnapshotTemplate {
  kube::ObjectMeta meta;
  std::string source;  ///< the sandbox's name, in the same namespace
  SnapshotTemplateStatus status;
};

/// kCorrupt: no object of ours. kInvalid names the field.
Result<SnapshotTemplate> ParseSnapshotTemplate(const nlohmann::json& object);

}  // namespace dormouse::api
