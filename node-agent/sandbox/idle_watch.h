// Whether something happens in the sandboxes that have an idle timeout.
//
// Active is one with an open session of ours (exec, logs, ports), with packets on its link, or with
// a machine that takes more than kBusyShare of a processor. What cannot be read counts as active,
// and so does the time in which nobody looked: a sandbox that is watched anew has just been active.
// Nothing is written for one that stays idle, or whose deadline is far.
//
// Thread-safe. A Session may outlive the watch that gave it.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/machine/activity.h"
#include "src/common/api/ids.h"
#include "src/common/base/clock.h"

namespace dormouse {

class IdleWatch {
 public:
  static constexpr double kBusyShare = 0.05;
  /// Between two readings of one sandbox: long enough that a share means something.
  static constexpr std::chrono::seconds kPeriod{2};
  /// Its user is warned so long before, or with a quarter of the timeout left.
  static constexpr std::chrono::seconds kWarning{60};

  /// What its status says.
  struct Shown {
    WallTime last_active{}, deadline{};
    bool soon = false;  ///< not idle yet, and little is left: time for a warning
    bool idle = false;
    bool operator==(const Shown&) const = default;
  };
  /// Somebody is in the sandbox for as long as it lives.
  using Session = std::shared_ptr<const void>;

  explicit IdleWatch(const Clock& clock) : state_(std::make_shared<State>(clock)) {}

  /// It runs, and is to be watched. The same timeout again changes nothing.
  void Watch(const api::SandboxUid& uid, std::chrono::nanoseconds timeout);
  /// It does not run, or has no timeout.
  void Forget(const api::SandboxUid& uid);
  [[nodiscard]] Session Open(const api::SandboxUid& uid) const;

  /// Those that are to be read now.
  [[nodiscard]] std::vector<api::SandboxUid> Due() const;
  /// What was read of it; nothing where it could not be. True when its status has to say something
  /// else.
  bool Note(const api::SandboxUid& uid, const std::optional<Activity>& read);
  /// Nothing of one that is not watched.
  [[nodiscard]] std::optional<Shown> Of(const api::SandboxUid& uid) const;

 private:
  struct Watched {
    std::chrono::nanoseconds timeout{};
    MonotonicTime last_active{}, read_at{};
    std::optional<Activity> read;
    Shown shown;
  };
  struct State {
    explicit State(const Clock& given) : clock(given) {}
    const Clock& clock;
    std::mutex mutex;
    std::map<api::SandboxUid, Watched> watched;
    std::map<api::SandboxUid, int> sessions;
  };
  static bool IsBusy(const Watched& watched, const Activity& read, MonotonicTime now);
  static Shown ShownOf(const Watched& watched, const Clock& clock);

  std::shared_ptr<State> state_;
};

}  // namespace dormouse
