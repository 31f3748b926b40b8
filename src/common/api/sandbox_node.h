// The SandboxNode resource: what a node offers to sandboxes. Written by its agent, as CSINode is by
// a driver; read by the controller to place. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "src/common/api/conditions.h"
#include "src/common/kube/object_meta.h"

namespace dormouse::api {

struct Taint {
  std::string key, value, effect;  ///< effect: NoSchedule | PreferNoSchedule | NoExecute
  bool operator==(const Taint&) const = default;
};

struct NodeAmount {
  int64_t vcpus = 0;
  int64_t memory_bytes = 0;
  int64_t disk_bytes = 0;
  int running = 0;
  int sleeping = 0;
  bool operator==(const NodeAmount&) const = default;
};

struct NodeImage {
  std::string name, digest;  ///< digest: sha256 in hex, empty while it is being computed
  int64_t size_bytes = 0;
  bool operator==(const NodeImage&) const = default;
};

namespace condition {
inline constexpr char kDiskPressure[] = "DiskPressure";
inline constexpr char kHypervisorReady[] = "HypervisorReady";
inline constexpr char kNetworkReady[] = "NetworkReady";
}  // namespace condition

struct SandboxNodeStatus {
  NodeAmount capacity, allocated;
  std::string hypervisor, hypervisor_version, kernel_version, cpu_model, endpoint, file_system;
  bool reflink = false;
  std::vector<NodeImage> images;
  std::vector<std::string> templates;  ///< UIDs of the templates whose files are here
  Conditions conditions;
  bool operator==(const SandboxNodeStatus&) const = default;
};

struct SandboxNode {
  kube::ObjectMeta meta;
  bool unschedulable = false;
  std::vector<Taint> taints;
  SandboxNodeStatus status;
};

Result<SandboxNode> ParseSandboxNode(const nlohmann::json& object);
[[nodiscard]] nlohmann::json SandboxNodeStatusToJson(const SandboxNodeStatus& status);

}  // namespace dormouse::api
