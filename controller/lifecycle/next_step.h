// What the controller owes one sandbox now: a pure function of the object, of what is known of its
// node, and of the time.
//
// The same function is asked twice before anything is undone: of the cached object, and of a live
// read (docs/structure.md, invariant 8). A condition counts only with the object's own generation.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

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
  kClaimAgain,       ///< somebody took our finalizer away, and its node has something of it
  kMarkLost,         ///< its node is lost, and it does not say so yet
  kGoneNodeLives,    ///< a person said that its node is gone, but it is alive: tell, do nothing
  kDelete,           ///< its time is over (`why`)
  kStop,             ///< its shutdownTime has come, and it is to be kept
  kSuspendIdle,      ///< nothing happens in it
  kRunOn,            ///< something happened in it before its agent had put it to sleep
};

struct Decision {
  Step step = Step::kNothing;
  std::string_view reason{};  ///< of kDelete, kStop and kSuspendIdle, one of reasons.h
  std::string why{};          ///< ... and a sentence for its event
  /// When time alone changes the decision.
  std::optional<std::chrono::nanoseconds> again{};
};

/// `node` is the state of the node in status.nodeName; any for a sandbox without one.
[[nodiscard]] Decision NextStep(const api::Sandbox& sandbox, NodeState node, WallTime now);

/// Released=True of this generation: everything on the node is verified gone, or never was.
[[nodiscard]] const api::Condition* ReleasedNow(const api::Sandbox& sandbox);

}  // namespace dormouse::controller
