// Where a sandbox goes: a pure function of what it needs and what the nodes have left.
//
// A node is out for the first cause that applies to it, in the order of PlacementCause; of those
// that remain, the one with the largest share of vCPUs and memory left wins (as kube-scheduler's
// LeastAllocated), nodes with a PreferNoSchedule taint that is not tolerated come last, and names
// break ties. When none remains, the message counts the nodes by cause, as kube-scheduler does:
// "0/3 nodes: 2 without room for 4Gi memory, 1 not Ready".
//
// Plain values; thread-safe.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "src/common/api/sandbox.h"
#include "src/common/api/sandbox_node.h"

namespace dormouse::controller {

/// What sandboxes hold of a node, or what one needs.
struct Amount {
  int64_t vcpus = 0;
  int64_t memory_bytes = 0;
  int sandboxes = 0;       ///< that run
  int64_t disk_bytes = 0;  ///< of disks' virtual sizes; held by those that sleep, too
  Amount& operator+=(const Amount& other);
  Amount& operator-=(const Amount& other);
  bool operator==(const Amount&) const = default;
};

struct Demand {
  Amount amount;                  ///< without a disk where that is as large as the node's image
  std::string image;              ///< empty for a sandbox from a template
  std::string template_name;      ///< empty for one from an image
  std::set<std::string> holders;  ///< nodes that have the template
  std::map<std::string, std::string> node_selector;
  std::vector<api::Toleration> tolerations;
  std::set<std::string> refused;  ///< nodes whose agent refused it lately

  /// Equal for sandboxes that can be placed on the same nodes.
  [[nodiscard]] std::string Shape() const;
};

/// One node as placement sees it. What is reserved counts everything that was placed on it, whether
/// or not its agent has heard of it yet.
struct NodeView {
  std::string name;
  std::map<std::string, std::string> labels;
  bool unschedulable = false;
  std::vector<api::Taint> taints;
  bool ready = false;  ///< its condition Ready is True, and its Lease is fresh
  bool hypervisor_ready = true;
  bool disk_pressure = false;
  std::map<std::string, int64_t> images;  ///< bytes by name
  Amount capacity;                        ///< sandboxes, disk: 0 = no limit
  Amount reserved;
  bool operator==(const NodeView&) const = default;
};

enum class PlacementCause {
  kNotReady,
  kUnschedulable,
  kSelector,
  kTaint,
  kHypervisor,
  kTemplate,
  kImage,
  kRefused,
  kDiskPressure,
  kNoRoom,
};

struct Obstacle {
  PlacementCause cause;
  std::string text;  ///< completes "2 nodes are": "not Ready", "without image debian-12"
};

/// `amount`, with a disk as large as `image` is there where it is without one.
[[nodiscard]] Amount AmountOn(const NodeView& node, Amount amount, const std::string& image);

/// Why the sandbox cannot go to this node; nothing when it can.
[[nodiscard]] std::optional<Obstacle> ObstacleOn(const NodeView& node, const Demand& demand);

struct Placement {
  std::string node;     ///< empty: none
  std::string reason;   ///< of reasons.h, where there is none
  std::string message;  ///< for people, where there is none
  bool operator==(const Placement&) const = default;
};

[[nodiscard]] Placement Place(const Demand& demand, const std::vector<NodeView>& nodes);

/// What of a SandboxNode placement reads; `lease_fresh` is what its Lease says. Nothing is reserved
/// yet.
[[nodiscard]] NodeView ViewOf(const api::SandboxNode& node, bool lease_fresh);

/// True when `toleration` covers `taint` (as in a Pod: an empty key with Exists covers all).
[[nodiscard]] bool Tolerates(const api::Toleration& toleration, const api::Taint& taint);

}  // namespace dormouse::controller
