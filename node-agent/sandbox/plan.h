// What to do next for one sandbox, from what is wanted and what there is. The agent's one decision.
//
// A pure function of values: no clock, no kernel, no I/O; tested by tables and golden text. The
// engine carries a plan out, observes again and asks again, so recovery after a crash is not a path
// of its own: an observation of half-made things gives the plan that completes, or unmakes, them.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/machine/observed.h"
#include "node-agent/machine/step.h"
#include "node-agent/record/record.h"
#include "src/common/api/sandbox.h"
#include "src/common/base/clock.h"

namespace dormouse {

struct Desired {
  bool deleting = false;  ///< deletionTimestamp is set
  api::OperatingMode mode = api::OperatingMode::kRunning;
  api::RestartPolicy restart_policy = api::RestartPolicy::kNever;
  bool has_workload = false;
  std::optional<WallTime> restarted_at{};  ///< spec.restartedAt
  std::chrono::seconds grace{30};          ///< of the workload's end; 0: without a signal
  bool stop_asked = false;                 ///< this VM's guest was told to power off
  bool stop_overdue = false;               ///< and has had its time, or could not be told
  bool node_disk_full = false;             ///< the node must stop what writes
  bool no_room = false;  ///< the node's memory is given to others: no wake or start now
  bool no_turn = false;  ///< others are waking: one that has not begun waits
  /// A template that is to be captured from this sandbox, or the boot snapshot of its shape.
  std::optional<TemplateCapture> capture_for{};
  bool hold_suspend = false;    ///< the last capture failed: run on for a while before the next
  bool boot_from_disk = false;  ///< the annotation: rather without its memory than not at all
  bool wake_failed = false;     ///< of this generation, since the agent started
  bool thawed = false;          ///< this VM's guest was, since its restore and by this agent
  std::optional<std::string> thaw_failed{};  ///< why its last thaw did
  bool thaw_refused = false;                 ///< and each other would
  /// Its guest has answered that it cannot be what the spec asks for, and why.
  std::optional<std::string> guest_refuses{};
  int64_t generation = 0;  ///< of the object: a wish that is new has another
};

/// Steps of one stage touch different parts and run side by side; stages run one after the other.
using Stage = std::vector<Step>;

/// Where the sandbox stands when the stages have been done (or there are none).
enum class Outcome {
  kProceed,     ///< more stages will follow: observe and plan again
  kAwaitGuest,  ///< look again soon, until the boot deadline
  kRunning,     ///< as wanted; look again now and then
  kBackOff,     ///< restart when Plan::at has come
  kSuspending,  ///< being captured; only ever told, never planned
  kSuspended,   ///< asleep
  kStopping,    ///< its guest powers off, within its grace
  kNoRoom,      ///< asleep or stopped, and wanted awake: the node has no memory for it
  kInLine,      ///< wakes, or starts as a clone, when others have woken
  kStopped,     ///< ended, or stopped by its mode: the files are kept
  kPaused,      ///< stands still for lack of disk
  kReleased,    ///< nothing is left
  kFailed,      ///< cannot be what is wanted (Plan::ending says why); nothing is destroyed
};

struct Plan {
  std::vector<Stage> stages;
  Outcome outcome = Outcome::kProceed;
  /// The record as kSaveIntent writes it; equal to the one given when nothing of it changes.
  Record record;
  std::optional<WallTime> at;

  /// "save-intent | disk.prepare net.prepare vmm.prepare | vmm.launch -> Proceed", for golden tests
  /// and ctl.
  [[nodiscard]] std::string ToString() const;
};

struct PlanLimits {
  std::chrono::seconds restart_base{10};  ///< back-off: base * 2^n ...
  std::chrono::seconds restart_cap{300};  ///< ... but no more than this
  std::chrono::minutes restart_reset{
      10};  ///< an incarnation that ran for so long starts the count of delays anew
};

[[nodiscard]] Plan MakePlan(const Record& record, const Desired& desired, const Observed& observed,
                            WallTime now, const PlanLimits& limits = {});

/// Whether the memory that it sleeps with is given up for a boot from its disk: only where a wake
/// of it has failed, and its user has asked for it since it fell asleep. A boot snapshot is none of
/// its own, and goes without being asked.
[[nodiscard]] bool GivesUpMemory(const Record& record, const Desired& desired);
/// Whether the wake that is wanted is one that the guest has refused already.
[[nodiscard]] bool IsRefused(const Record& record, const Desired& desired);
/// Whether one that has ended, or was stopped, is to be started again.
[[nodiscard]] bool StartsAgain(const Record& record, const Desired& desired);

/// Whether an ending is followed by another incarnation.
[[nodiscard]] bool ShouldRestart(api::RestartPolicy policy, const Ending& ending);
/// The wait before the restart that follows `restart_count` earlier ones: 0 for the first.
[[nodiscard]] std::chrono::seconds RestartDelay(int restart_count, const PlanLimits& limits);

}  // namespace dormouse
