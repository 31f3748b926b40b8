// What the agent remembers and commits of sleep; the steps themselves are the machine's.
#include <algorithm>
#include <set>
#include <utility>

#include "node-agent/sandbox/agent.h"
#include "src/common/base/metrics.h"

namespace dormouse {

bool Agent::TakeRoomFor(const Record& record) {
  if (options_.memory_bytes == 0) return true;
  const std::vector<Record> all = records_.All();
  const std::lock_guard lock(mutex_);
  WakeRoom& mine = remembered_[record.uid].room;
  if (mine.taken()) return true;
  int64_t given = record.resources.memory_bytes;
  std::set<api::SandboxUid> recorded{record.uid};
  for (const Record& other : all) {
    if (!recorded.insert(other.uid).second) continue;
    const auto found = remembered_.find(other.uid);
    const bool comes_first = found != remembered_.end() && found->second.room.ComesBefore(mine);
    if (other.intent == Intent::kRun || (other.intent != Intent::kRelease && comes_first))
      given += other.resources.memory_bytes;
  }
  for (const auto& [uid, kept] : remembered_) {
    if (!recorded.contains(uid)) given += kept.room.start_bytes();
  }
  if (given <= options_.memory_bytes) {
    mine.Take(record.intent == Intent::kRun ? record.resources.memory_bytes : 0);
  } else {
    mine.Wait(clock_.Now());
  }
  return mine.taken();
}

void Agent::LeaveRoom(const Record& record) {
  Remember(record.uid, [](Remembered& kept) { kept.room.Leave(); });
}

bool Agent::TakeTurn(const api::Sandbox& sandbox, const Record& record) {
  const bool wakes = record.sleeping && record.intent != Intent::kStopped &&
                     sandbox.spec.operating_mode == api::OperatingMode::kRunning &&
                     !sandbox.meta.deletion_time;
  if (wakes) return turns_.Take(record.uid);
  LeaveTurn(record.uid);
  return true;
}

void Agent::LeaveTurn(const api::SandboxUid& uid) {
  for (const api::SandboxUid& next : turns_.Leave(uid)) enqueue_(next.text());
}

void Agent::ForgetFailedSuspends(const Record& record) {
  Remember(record.uid, [](Remembered& kept) { kept.suspends.Forget(); });
}

void Agent::CountCapture(const char* kind, const CaptureFigures& figures) {
  metrics::Registry& registry = metrics::Registry::Default();
  // From a few pages to a machine that is large and new.
  static const std::vector<double> bytes = {0x1p18, 0x1p20, 0x1p22, 0x1p24, 0x1p26,
                                            0x1p28, 0x1p30, 0x1p32, 0x1p34};
  registry
      .MakeHistogram("dormouse_capture_written_bytes",
                     "What committed captures wrote of their machine's memory.", bytes,
                     {{"kind", kind}})
      .Observe(static_cast<double>(figures.written_bytes));
  // The VM was found paused: nobody knows since when.
  if (figures.pause_window_ms == 0) return;
  static const std::vector<double> seconds = {0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30};
  registry
      .MakeHistogram("dormouse_capture_pause_window_seconds",
                     "How long machines stood still for captures that were committed.", seconds,
                     {{"kind", kind}})
      .Observe(std::chrono::duration<double>(std::chrono::milliseconds(figures.pause_window_ms))
                   .count());
}

Result<> Agent::CommitSuspend(Record* record) {
  Record asleep = *record;
  asleep.intent = Intent::kSuspended;
  asleep.sleeping = asleep.generations;
  asleep.ForgetRun();
  asleep.ending.reset();
  asleep.not_before.reset();
  asleep.wake_attempts = 0;
  asleep.suspended_at = clock_.WallNow();
  if (auto saved = records_.Save(asleep); !saved) {
    // It may have reached the disk all the same: before the guest runs on, the record must say that
    // it runs. One that never took the old one's name, as on a full disk, says nothing.
    const auto stands = records_.ReadBack(record->uid);
    const bool in_doubt = !stands || stands->sleeping == asleep.sleeping;
    if (in_doubt && !records_.Save(*record)) {
      Remember(record->uid, [](Remembered& kept) { kept.commit_in_doubt = true; });
    }
    return saved;
  }
  CountCapture("suspend", *asleep.capture);
  TellTemplate(*record);
  *record = std::move(asleep);
  ForgetFailedSuspends(*record);
  return {};
}

Result<> Agent::CommitWake(Record* record) {
  Record awake = *record;
  awake.memory_generation = std::exchange(awake.sleeping, std::nullopt);
  awake.ending.reset();
  awake.wake_attempts = 0;
  DORMOUSE_TRY(records_.Save(awake));
  *record = std::move(awake);
  TellTemplate(*record);
  return {};
}

}  // namespace dormouse
