// What a sandbox needs of a node before it is placed, and what it holds afterwards. Pure.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <variant>

#include "controller/placement/ledger.h"
#include "controller/placement/placement.h"
#include "src/common/api/sandbox.h"
#include "src/common/api/snapshot_template.h"

namespace dormouse::controller {

/// The template of that namespace and name, or null. Thread-safe, and takes no lock of the
/// caller's.
using TemplateLookup = std::function<std::shared_ptr<const api::SnapshotTemplate>(
    const std::string& ns, const std::string& name)>;

/// Why a sandbox waits whatever the nodes are like: its template is not ready, or it contradicts
/// it.
struct Waits {
  std::string reason, message;
};

/// `refused` of the demand is the caller's to fill.
[[nodiscard]] std::variant<Demand, Waits> DemandOf(const api::Sandbox& sandbox,
                                                   const TemplateLookup& templates);

/// What a placed sandbox holds: only its disk while it sleeps or is finished, as then no machine
/// exists; else what its status says, or what it will have once its agent has written that. No disk
/// where that is as large as its image, and its agent has not told how large that is. Nothing for a
/// sandbox that is not placed.
[[nodiscard]] std::optional<Holding> HoldingOf(const api::Sandbox& sandbox,
                                               const TemplateLookup& templates);

}  // namespace dormouse::controller
