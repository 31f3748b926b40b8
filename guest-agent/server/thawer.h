// What a guest does between its vCPUs' first step after a snapshot and its processes' first: new
// random numbers, the time, who it is now, the hooks of its programs; then all goes on.
//
// On the EventLoop's thread. A thaw goes on when the host that asked has hung up: it may ask again.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "guest-agent/server/clone_hooks.h"
#include "guest-agent/server/freezer.h"
#include "guest-agent/server/machine.h"
#include "src/common/guest/messages.h"

namespace dormouse::guest {

class Thawer {
 public:
  using OnThawed = std::function<void(const Result<void>&)>;
  using WaiterId = uint64_t;  ///< 0 is none

  Thawer(Machine& machine, Freezer& freezer, CloneHooks& hooks)
      : machine_(machine), freezer_(freezer), hooks_(hooks) {}
  Thawer(const Thawer&) = delete;
  Thawer& operator=(const Thawer&) = delete;

  /// See ThawRequest. `on_thawed` is called once, perhaps before this returns, which is then 0.
  /// kBusy while another thaw is under way.
  [[nodiscard]] WaiterId Thaw(const ThawRequest& request, OnThawed on_thawed);
  void Forget(WaiterId id);
  /// What the last thaw had to complain about and went on.
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  /// Told after each thaw and before its answer, with whether the guest woke in another VMM than it
  /// was frozen in.
  void SetOnThaw(std::function<void(bool elsewhere)> on_thaw) { on_thaw_ = std::move(on_thaw); }

 private:
  [[nodiscard]] Result<void> Repair(const ThawRequest& request);
  void Finish(const ThawRequest& request);
  void Answer(const Result<void>& thawed);

  Machine& machine_;
  Freezer& freezer_;
  CloneHooks& hooks_;
  std::function<void(bool)> on_thaw_;
  std::optional<Identity> identity_;  ///< the last that was taken
  std::vector<std::string> notes_;
  bool under_way_ = false;
  OnThawed waiter_;
  WaiterId waiter_id_ = 0;
  WaiterId next_waiter_ = 1;
};

}  // namespace dormouse::guest
