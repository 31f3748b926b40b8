// What the controller owes one SnapshotTemplate now: a pure function of the object, of its source,
// and of what is known of its node.
//
// The same function is asked twice before anything is undone or given away: of the cached object,
// and of a live read (docs/structure.md, invariant 8).
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "controller/nodes/node_health.h"
#include "src/common/api/sandbox.h"
#include "src/common/api/snapshot_template.h"

namespace dormouse::controller {

enum class TemplateStep {
  kNothing,
  kWait,             ///< its source is not there, or on no node: say so
  kPlace,            ///< its source is on a node, which is the template's then
  kFail,             ///< it waited for its source until failureDeadline: never to be placed
  kClaimAgain,       ///< somebody took our finalizer away, and its node has something of it
  kSettleSource,     ///< captured: the source is to be suspended or deleted, once
  kExpire,           ///< nobody has used it for its ttl
  kRemoveFinalizer,  ///< it is being deleted, and nothing of it is left anywhere
  kGoneNodeLives,    ///< a person said that its node is gone, but it is alive: tell, do nothing
};

/// What is known beside the object.
struct TemplateView {
  const api::Sandbox* source = nullptr;  ///< of the name in spec.source; null: there is none
  NodeHealth::Verdict node;              ///< of status.nodeName; any for a template without one
  bool awaited = false;                  ///< a sandbox that starts from it waits to be placed
  WallTime now{};
};

struct TemplateDecision {
  TemplateStep step = TemplateStep::kNothing;
  std::string message;                            ///< of kWait and kFail: what is missing
  std::optional<std::chrono::nanoseconds> again;  ///< when time alone changes the decision
};

[[nodiscard]] TemplateDecision NextTemplateStep(const api::SnapshotTemplate& object,
                                                const TemplateView& view);

/// Why a template cannot follow `source` (null: there is none) to its node yet; empty when it can.
[[nodiscard]] std::string SourceObstacle(const std::string& name, const api::Sandbox* source);

}  // namespace dormouse::controller
