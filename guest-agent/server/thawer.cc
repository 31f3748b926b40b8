#include "guest-agent/server/thawer.h"

namespace dormouse::guest {
namespace {

bool Same(const std::optional<Identity>& known, const Identity& wanted) {
  return known && known->hostname == wanted.hostname && known->machine_id == wanted.machine_id;
}

}  // namespace

Thawer::WaiterId Thawer::Thaw(const ThawRequest& request, OnThawed on_thawed) {
  if (under_way_) {
    on_thawed(Fail(ErrorCode::kBusy, "a thaw is under way"));
    return 0;
  }
  if (const auto repaired = Repair(request); !repaired) {
    on_thawed(repaired);
    return 0;
  }
  if (!freezer_.holding()) {
    on_thawed({});
    return 0;
  }
  under_way_ = true;
  waiter_ = std::move(on_thawed);
  waiter_id_ = next_waiter_++;
  const WaiterId id = waiter_id_;
  if (!request.new_identity || Same(identity_, *request.new_identity)) {
    Finish(request);
  } else {
    hooks_.Run(*request.new_identity, [this, request](std::vector<std::string> notes) {
      notes_ = std::move(notes);
      identity_ = request.new_identity;
      Finish(request);
    });
  }
  return waiter_id_ == id ? id : 0;
}

void Thawer::Forget(WaiterId id) {
  if (id == 0 || id != waiter_id_) return;
  waiter_ = nullptr;
  waiter_id_ = 0;
}

// Random numbers come first: nothing below may draw one that another clone draws too.
Result<void> Thawer::Repair(const ThawRequest& request) {
  if (!request.entropy.empty()) DORMOUSE_TRY(machine_.AddEntropy(request.entropy));
  if (request.wall_time_ns != 0) DORMOUSE_TRY(machine_.SetWallTime(request.wall_time_ns));
  if (!request.new_identity || Same(identity_, *request.new_identity)) return {};
  if (!freezer_.holding()) {
    return Fail(ErrorCode::kConflict, "not frozen: its programs have seen who they are");
  }
  return machine_.TakeIdentity(*request.new_identity);
}

void Thawer::Finish(const ThawRequest& request) {
  const auto thawed = freezer_.Thaw();
  under_way_ = false;
  if (thawed && on_thaw_) on_thaw_(request.is_resume || request.new_identity.has_value());
  Answer(thawed);
}

void Thawer::Answer(const Result<void>& thawed) {
  const OnThawed waiter = std::move(waiter_);
  waiter_ = nullptr;
  waiter_id_ = 0;
  if (waiter) waiter(thawed);
}

}  // namespace dormouse::guest
