// What the API is told of a sandbox. A pure function: record, wish, observation and outcome in,
// status out; the writer compares it with what was last written and stays silent when nothing
// changed.
#pragma once

#include <optional>
#include <string>

#include "node-agent/machine/machine.h"
#include "node-agent/record/record.h"
#include "node-agent/sandbox/idle_watch.h"
#include "node-agent/sandbox/plan.h"
#include "src/common/api/sandbox.h"
#include "src/common/base/result.h"

namespace dormouse {

/// Why the last attempt did not get further; `reason` is one of reasons.h.
struct Problem {
  std::string reason;
  std::string message;
  bool operator==(const Problem&) const = default;
};

struct StatusInputs {
  Record record;
  Observed observed;
  Outcome outcome = Outcome::kProceed;
  std::optional<Problem> problem;
  std::optional<Problem>
      capture_problem;  ///< the last suspend that was asked for did not succeed; it runs on
  std::optional<Problem> memory_problem;  ///< it sleeps, and could not be woken
  std::optional<DiskUsage> disk;
  std::optional<IdleWatch::Shown> idle;  ///< of one that runs and has an idle timeout
  std::string stopped_by_disk;  ///< why it of all stands still, where the outcome is kPaused
  VmmIdentity vmm;
  std::string node_ip;
  std::string host_address;
  bool released = false;  ///< everything was seen to be gone
  bool refused = false;   ///< nothing was made, and shall not be here: the controller places anew
};

/// `before` gives the transition times of conditions that do not change, and what only the
/// controller sets.
[[nodiscard]] api::SandboxStatus ComputeStatus(const api::Sandbox& sandbox,
                                               const StatusInputs& inputs, WallTime now);

/// The reason that a failure of `step` is reported with; `step` absent: Machine::Resolve.
[[nodiscard]] Problem ProblemOf(std::optional<Step> step, const Error& error);

}  // namespace dormouse
