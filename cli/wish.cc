#include "cli/wish.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cli/text.h"
#include "src/common/api/field_reader.h"
#include "src/common/api/reasons.h"
#include "src/common/api/snapshot_template.h"

namespace dormouse::cli {
namespace {

using api::Condition;
using api::ConditionStatus;
using api::OperatingMode;
namespace reasons = api::reasons;

/// Reasons of Ready=False that end the wait for a running sandbox.
constexpr std::array kHopeless{reasons::kResumeFailed,         reasons::kSnapshotIncompatible,
                               reasons::kInvalidSpec,          reasons::kImageDamaged,
                               reasons::kRecordCorrupt,        reasons::kCowExhausted,
                               reasons::kHypervisorUnsupported};
/// Reasons that say no more than the phase does.
constexpr std::array kExpected{reasons::kStarting, reasons::kSuspendedByUser, reasons::kSuspending,
                               reasons::kResuming, reasons::kReady,           reasons::kRunning};

template <typename Reasons>
bool IsOneOf(const std::string& reason, const Reasons& all) {
  return std::find(all.begin(), all.end(), reason) != all.end();
}

std::string TextOf(const Condition& condition) {
  return OneLine(condition.message.empty() ? condition.reason
                                           : condition.reason + ": " + condition.message);
}

/// The sandbox's own words on the spec that is waited for.
class Believed {
 public:
  Believed(const api::Sandbox& sandbox, int64_t generation)
      : status_(sandbox.status), generation_(generation) {}

  [[nodiscard]] bool Phase(std::string_view phase) const {
    return status_.observed_generation >= generation_ && status_.phase == phase;
  }
  /// Null when it is not there, or older.
  [[nodiscard]] const Condition* Find(std::string_view type) const {
    const Condition* condition = api::FindCondition(status_.conditions, type);
    return condition != nullptr && condition->observed_generation >= generation_ ? condition
                                                                                 : nullptr;
  }
  [[nodiscard]] const Condition* FindFalse(std::string_view type) const {
    const Condition* condition = Find(type);
    return condition != nullptr && condition->status == ConditionStatus::kFalse ? condition
                                                                                : nullptr;
  }

 private:
  const api::SandboxStatus& status_;
  int64_t generation_;
};

std::string AmountOf(const api::SandboxStatus& status, const Wish& wish, bool done) {
  const bool suspends = wish.mode == OperatingMode::kSuspended;
  // Until a suspend has ended the status holds the bytes of the one before it.
  if (status.snapshot && suspends && done) {
    return Amount(status.snapshot->written_bytes) + " written, " +
           Amount(status.snapshot->memory_bytes) + " kept";
  }
  if (status.snapshot && !suspends) return Amount(status.snapshot->memory_bytes) + " kept";
  return status.resources ? Amount(status.resources->memory_bytes) + " RAM" : "";
}

/// Why it has ended, when it has.
const Condition* EndOf(const Believed& believed) {
  if (!believed.Phase(api::phase::kFinished) && !believed.Phase(api::phase::kFailed))
    return nullptr;
  const Condition* finished = believed.Find(api::condition::kFinished);
  return finished != nullptr ? finished : believed.FindFalse(api::condition::kReady);
}

/// Empty when nothing has failed.
std::string FailureOf(const api::Sandbox& sandbox, const Believed& believed, const Wish& wish) {
  if (sandbox.meta.deletion_time)
    return std::string(reasons::kTerminating) + ": it is being deleted";
  if (sandbox.meta.generation > wish.generation && sandbox.spec.operating_mode != wish.mode) {
    return wish.mode == OperatingMode::kSuspended
               ? "someone else has set operatingMode to Running"
               : "someone else has set operatingMode to Suspended";
  }
  if (wish.mode == OperatingMode::kSuspended) {
    const Condition* suspended = believed.FindFalse(api::condition::kSuspended);
    if (suspended != nullptr && suspended->reason == reasons::kSnapshotFailed)
      return TextOf(*suspended);
  } else {
    const Condition* ready = believed.FindFalse(api::condition::kReady);
    if (ready != nullptr && IsOneOf(ready->reason, kHopeless)) return TextOf(*ready);
  }
  if (const Condition* end = EndOf(believed)) return "it has ended: " + TextOf(*end);
  return believed.Phase(api::phase::kFailed) ? "it has failed" : "";
}

/// What is waited for, where that is more than the phase says.
std::string ObstacleTo(const api::Sandbox& sandbox, const Believed& believed) {
  // Unknown is the controller's word for a lost node, whatever the generation.
  const Condition* ready = api::FindCondition(sandbox.status.conditions, api::condition::kReady);
  if (ready != nullptr && ready->status == ConditionStatus::kUnknown) return TextOf(*ready);
  for (const char* type : {api::condition::kScheduled, api::condition::kReady}) {
    const Condition* condition = believed.FindFalse(type);
    if (condition != nullptr && !IsOneOf(condition->reason, kExpected)) return TextOf(*condition);
  }
  return "";
}

bool IsDone(const Believed& believed, OperatingMode mode) {
  if (mode == OperatingMode::kSuspended) return believed.Phase(api::phase::kSuspended);
  const Condition* ready = believed.Find(api::condition::kReady);
  return believed.Phase(api::phase::kRunning) && ready != nullptr &&
         ready->status == ConditionStatus::kTrue;
}

}  // namespace

Progress Judge(const api::Sandbox& sandbox, const Wish& wish) {
  const Believed believed(sandbox, wish.generation);
  Progress progress;
  progress.phase =
      sandbox.status.phase.empty() ? api::phase::kPending : OneLine(sandbox.status.phase);
  progress.why = FailureOf(sandbox, believed, wish);
  if (!progress.why.empty()) {
    progress.standing = Standing::kFailed;
  } else if (IsDone(believed, wish.mode)) {
    progress.standing = Standing::kDone;
  } else {
    progress.why = ObstacleTo(sandbox, believed);
  }
  progress.amount = AmountOf(sandbox.status, wish, progress.standing == Standing::kDone);
  return progress;
}

Result<Progress> JudgeTemplate(const nlohmann::json& object) {
  DORMOUSE_ASSIGN(const api::SnapshotTemplate frozen, api::ParseSnapshotTemplate(object));
  std::optional<Error> error;
  const api::FieldReader status = api::FieldReader(&object, "", &error).Object("status");
  const Condition* ready = api::FindCondition(frozen.status.conditions, api::condition::kReady);
  const Condition* failed = api::FindCondition(frozen.status.conditions, "Failed");
  if (failed != nullptr && failed->status != ConditionStatus::kTrue) failed = nullptr;

  Progress progress;
  progress.phase = frozen.status.phase.empty() ? "Pending" : OneLine(frozen.status.phase);
  if (const auto memory = status.Integer("memoryBytes", 1, INT64_MAX))
    progress.amount = Amount(*memory) + " RAM";
  if (const auto kept = status.Integer("allocatedBytes", 1, INT64_MAX))
    progress.amount = Amount(*kept) + " kept";
  if (frozen.meta.deletion_time) {
    progress.standing = Standing::kFailed;
    progress.why = std::string(reasons::kTerminating) + ": it is being deleted";
  } else if (failed != nullptr || frozen.status.phase == "Failed") {
    progress.standing = Standing::kFailed;
    const std::string message = OneLine(status.Object("error").Text("message"));
    progress.why = failed != nullptr ? TextOf(*failed)
                   : message.empty() ? "the capture has failed"
                                     : message;
  } else if (frozen.status.ready_to_use) {
    progress.standing = Standing::kDone;
  } else if (ready != nullptr && ready->status != ConditionStatus::kTrue &&
             !IsOneOf(ready->reason, kExpected)) {
    progress.why = TextOf(*ready);
  }
  return progress;
}

}  // namespace dormouse::cli
