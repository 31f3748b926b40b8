// What the agent remembers of one sandbox between reconciles.
//
// All of it is lost with the process, and none of it is needed: an agent that knows nothing looks
// again, waits a little longer or writes a status once more. Each part has its own rule. Values;
// Agent guards them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "node-agent/machine/machine.h"
#include "node-agent/sandbox/status.h"
#include "src/common/base/clock.h"

namespace dormouse {

/// What was seen of it, and when. A full look costs system calls, so it is used again for a while.
class LastLook {
 public:
  void Note(const Observed& seen, MonotonicTime now) {
    seen_ = seen;
    at_ = now;
  }
  /// Something may have happened to it: the next look is a full one.
  void Forget() { seen_.reset(); }
  void NotePruned() {
    if (seen_) seen_->stale_files = false;
  }
  /// The kernel says that it has put these rules in force.
  void NoteEgress(const std::string& rules) {
    if (seen_) seen_->egress = rules;
  }
  /// Nothing once it is as old as `limit`.
  [[nodiscard]] std::optional<Observed> Within(std::chrono::nanoseconds limit,
                                               MonotonicTime now) const {
    return now - at_ < limit ? seen_ : std::nullopt;
  }

 private:
  std::optional<Observed> seen_;
  MonotonicTime at_{};
};

/// Its VMM of now: when it was launched, and what its guest was told since.
class VmmRun {
 public:
  void Launched(MonotonicTime now) {
    *this = {};
    launched_ = now;
  }
  /// An earlier agent launched it. Its guest gets a whole deadline from now on.
  void Found(MonotonicTime now) {
    if (!launched_) launched_ = now;
  }
  void Ended() { launched_.reset(); }
  [[nodiscard]] std::optional<std::chrono::nanoseconds> Since(MonotonicTime now) const {
    return launched_ ? std::optional(now - *launched_) : std::nullopt;
  }

  /// This process booted it from a disk that no tenant has written.
  void Booted(bool disk_is_new) { fresh_ = disk_is_new; }
  /// Or a boot snapshot of it failed: none is made of it any more.
  void ToldItsTenant() { fresh_ = false; }
  [[nodiscard]] bool IsFresh() const { return fresh_; }

  /// At each full look: whether it answered nothing.
  void Looked(bool silent, MonotonicTime now) {
    if (!silent) {
      silent_since_.reset();
    } else if (!silent_since_) {
      silent_since_ = now;
    }
  }
  /// It did not answer to a pause within its limit.
  void PauseHung(std::string why) { pause_hung_ = std::move(why); }
  /// Why it is to be ended; nothing while it may go on.
  [[nodiscard]] std::optional<std::string> WhyItHangs(std::chrono::nanoseconds limit,
                                                      MonotonicTime now) const {
    if (pause_hung_) return pause_hung_;
    if (!silent_since_ || now - *silent_since_ < limit) return std::nullopt;
    const auto silent = std::chrono::duration_cast<std::chrono::seconds>(now - *silent_since_);
    return "the VMM has not answered for " + std::to_string(silent.count()) + " s, and was ended";
  }

  /// Its guest was told to power off, and is waited for until then; `due` in the past: it could not
  /// be told.
  void StopAsked(MonotonicTime due) { stop_due_ = due; }
  [[nodiscard]] bool IsStopAsked() const { return stop_due_.has_value(); }
  [[nodiscard]] bool IsStopOverdue(MonotonicTime now) const {
    return stop_due_ && now >= *stop_due_;
  }

  void Thawed() { thawed_ = true; }
  void ThawFailed(std::string why) { thaw_failed_ = std::move(why); }
  [[nodiscard]] bool thawed() const { return thawed_; }
  [[nodiscard]] const std::optional<std::string>& thaw_failed() const { return thaw_failed_; }

 private:
  std::optional<MonotonicTime> launched_;
  std::optional<MonotonicTime> silent_since_;
  std::optional<std::string> pause_hung_;
  std::optional<MonotonicTime> stop_due_;
  bool fresh_ = false;
  bool thawed_ = false;
  std::optional<std::string> thaw_failed_;
};

/// How long a sandbox runs on after a capture that failed, a suspend's or a template's: each stands
/// it still. Doubled each time.
inline std::chrono::seconds DelayAfter(int failures_before, std::chrono::seconds first) {
  return std::min<std::chrono::seconds>(first * (1 << std::min(failures_before, 5)),
                                        std::chrono::minutes(5));
}

/// Suspends that failed. The sandbox runs on, for longer each time, before the next attempt.
class FailedSuspends {
 public:
  void Note(Problem problem, std::chrono::seconds first_delay, MonotonicTime now) {
    not_before_ = now + DelayAfter(count_++, first_delay);
    problem_ = std::move(problem);
  }
  void Forget() {
    not_before_ = {};
    count_ = 0;
    problem_.reset();
  }
  /// How much longer it runs on; 0 or less: a suspend may begin.
  [[nodiscard]] std::chrono::nanoseconds Hold(MonotonicTime now) const { return not_before_ - now; }
  [[nodiscard]] const std::optional<Problem>& problem() const { return problem_; }

 private:
  MonotonicTime not_before_{};
  int count_ = 0;  ///< in a row
  std::optional<Problem> problem_;
};

/// Why the wake of a generation failed. It says nothing about any other generation.
class FailedWake {
 public:
  void Note(uint64_t generation, std::string why) { last_ = {generation, std::move(why)}; }
  void Forget() { last_.reset(); }
  [[nodiscard]] std::optional<std::string> Of(const std::optional<uint64_t>& generation) const {
    return last_ && last_->first == generation ? std::optional(last_->second) : std::nullopt;
  }

 private:
  std::optional<std::pair<uint64_t, std::string>> last_;
};

/// The node's memory for its wake or its start: taken, or waited for. Counts until its record says
/// that it runs.
class WakeRoom {
 public:
  /// `start_bytes`: of one that starts and has no record yet, which else would say how much it is.
  void Take(int64_t start_bytes) {
    taken_ = true;
    start_bytes_ = start_bytes;
    waits_since_.reset();
  }
  void Wait(MonotonicTime now) {
    if (!waits_since_) waits_since_ = now;
  }
  void Leave() { *this = {}; }
  [[nodiscard]] bool taken() const { return taken_; }
  [[nodiscard]] int64_t start_bytes() const { return start_bytes_; }
  /// It has its room, or has waited for longer.
  [[nodiscard]] bool ComesBefore(const WakeRoom& other) const {
    return taken_ || (waits_since_ && (!other.waits_since_ || *waits_since_ < *other.waits_since_));
  }

 private:
  bool taken_ = false;
  int64_t start_bytes_ = 0;
  std::optional<MonotonicTime> waits_since_;
};

/// What the API server was told.
struct Told {
  std::string status;                  ///< last written, as JSON; empty: none by this process
  kube::ResourceVersion version;       ///< of that write
  std::optional<api::Sandbox> object;  ///< as that write returned it, while the cache is behind
  std::optional<DiskUsage> disk;
  std::string phase, ready_reason;
  std::string warning;     ///< the last event of that kind
  bool idle_soon = false;  ///< its user was warned of that

  /// The cache has caught up with the write, or lost it: etcd was restored. Then what the object
  /// says counts, and not what was written.
  void CacheShows(const kube::ResourceVersion& cached) {
    object.reset();
    if (!cached.IsAtLeast(version)) status.clear();
  }
};

struct Remembered {
  LastLook look;
  VmmRun vmm;
  FailedSuspends suspends;
  /// The record on disk may say that it sleeps. Until one that says what is so is written, nothing
  /// may run.
  bool commit_in_doubt = false;
  FailedWake wake;
  WakeRoom room;
  Told told;
  std::string plan;  ///< the last one, for ctl
};

}  // namespace dormouse
