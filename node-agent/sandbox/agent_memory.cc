// What the agent does about memory that cannot be used: it says so, and where its user asks for it,
// the sandbox goes on without.
#include <utility>

#include "node-agent/sandbox/agent.h"
#include "src/common/api/reasons.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

constexpr char kBootFromDiskAnnotation[] = "dormouse.dev/boot-from-disk";

// A VMM that is silent, or gone, while it restores has read what it was given; before that only the
// node was asked.
bool SaysNothingOfMemory(Step step, ErrorCode code) {
  if (code == ErrorCode::kNoSpace || code == ErrorCode::kCancelled) return true;
  return step == Step::kRestoreStore && (code == ErrorCode::kBusy || code == ErrorCode::kDeadline ||
                                         code == ErrorCode::kUnavailable);
}

}  // namespace

bool Agent::AsksToBootFromDisk(const api::Sandbox& sandbox) {
  const auto found = sandbox.meta.annotations.find(kBootFromDiskAnnotation);
  return found != sandbox.meta.annotations.end() && found->second == "true";
}

Result<> Agent::NoticeDiskBootIsOver(const api::Sandbox& sandbox, Record* record) {
  if (!record->disk_boot_spent || AsksToBootFromDisk(sandbox)) return {};
  // Set again, it is meant anew; so that it was gone in between is remembered.
  Record anew = *record;
  anew.disk_boot_spent = false;
  DORMOUSE_TRY(records_.Save(anew));
  *record = std::move(anew);
  return {};
}

std::optional<std::string> Agent::WhyWakeFailed(const Record& record) const {
  return Recall(record.uid, [&](const Remembered& kept) { return kept.wake.Of(record.sleeping); });
}

bool Agent::NoteFailedWake(const Record& record, Step step, const Error& error) {
  if (!record.sleeping || SaysNothingOfMemory(step, error.code())) return false;
  Remember(record.uid,
           [&](Remembered& kept) { kept.wake.Note(*record.sleeping, error.message()); });
  return true;
}

Result<> Agent::ForgetMemory(const api::SandboxSpec& spec, Record* record) {
  Record disk_only = *record;
  const bool cloning = disk_only.IsCloning();
  const bool stopped = spec.operating_mode == api::OperatingMode::kStopped;
  const std::string why = WhyWakeFailed(disk_only).value_or(
      disk_only.ending ? disk_only.ending->message : "it could not be woken");
  const uint64_t generation = *std::exchange(disk_only.sleeping, std::nullopt);
  disk_only.ending =
      Ending{std::string(api::reasons::kMemoryGivenUp),
             (cloning ? "the memory of its template"
                      : "the memory of generation " + std::to_string(generation)) +
                 " was given up, as " +
                 (stopped ? "operatingMode: Stopped asks for"
                          : std::string("the annotation ") + kBootFromDiskAnnotation +
                                " asks for, and it boots from that disk: " + why),
             false, std::nullopt, clock_.WallNow()};
  disk_only.ForgetRun();
  disk_only.not_before.reset();
  disk_only.wake_attempts = 0;
  disk_only.wake_refused.reset();
  // Nothing goes on in it: its own workload is all that is started.
  if (disk_only.origin) disk_only.origin->has_workload = false;
  DORMOUSE_TRY(records_.Save(disk_only));
  log::Warning("the memory of a sandbox was given up",
               {{"sandbox", disk_only.key().ToString()}, {"generation", generation}, {"why", why}});
  *record = std::move(disk_only);
  Remember(record->uid, [](Remembered& kept) {
    kept.wake.Forget();
    kept.vmm.Ended();
  });
  TellTemplate(*record);
  return {};
}

void Agent::AnnounceDiskBoot(const api::Sandbox& sandbox, const Plan& plan, const Record& record) {
  for (const Stage& stage : plan.stages) {
    // With its sleep forgotten the commit was reached, whatever came after it.
    if (stage.front() == Step::kForgetMemory && !record.sleeping && record.ending)
      control_plane_.Event(sandbox, true, record.ending->reason, record.ending->message);
  }
}

void Agent::NoteMemory(const api::SandboxUid& owner, uint64_t generation,
                       std::optional<std::string> damage) {
  {
    const std::lock_guard lock(mutex_);
    if (damage) {
      damaged_[owner] = {generation, std::move(*damage)};
    } else {
      damaged_.erase(owner);
    }
  }
  if (generation == 0) {
    template_changed_(owner.text());
  } else {
    enqueue_(owner.text());
  }
}

std::optional<std::string> Agent::DamageOf(const api::SandboxUid& owner,
                                           uint64_t generation) const {
  const std::lock_guard lock(mutex_);
  const auto found = damaged_.find(owner);
  if (found == damaged_.end() || found->second.first != generation) return std::nullopt;
  return found->second.second;
}

}  // namespace dormouse
