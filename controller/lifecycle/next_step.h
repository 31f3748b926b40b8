// What the controller owes one sandbox now: a pure function of the object and of what is known of
// its node.
//
// The same function is asked twice before anything is undone: of the cached object, and of a live
// read (docs/structure.md, invariant 8). A condition counts only with the object's own generation.
#pragma once

#include "controller/nodes/node_health.h"
#include "src/common/api/sandbox.h"

namespace dormouse::controller {

enum class Step {
  kNothing,
  kPlace,          ///< it has no node: find one, or say why it waits
  kPlaceAnew,      ///< its agent refused it before making anything: take the node away, place again
  kLeaveGoneNode,  ///< a person said that its node, which is lost, is gone: take it away, place
                   ///< again
  kRemoveFinalizer,  ///< it is being deleted, and nothing of it is left anywhere
  kMarkLost,         ///< its node is lost, and it does not say so yet
  kGoneNodeLives,    ///< a person said that its node is gone, but it is alive: tell, do nothing
};

/// `node` is the state of the node in status.nodeName; any for a sandbox without one.
[[nodiscard]] Step NextStep(const api::Sandbox& sandbox, NodeState node);

/// Released=True of this generation: everything on the node is verified gone, or never was.
[[nodiscard]] const api::Condition* ReleasedNow(const api::Sandbox& sandbox);

}  // namespace dormouse::controller
