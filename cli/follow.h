// One object as it changes, for a program that waits for it: read, watch, and read again when the
// watch ends.
//
// A live read starts each round, so nothing is missed, and an expired version needs no case of its
// own. Blocks; any number of threads may follow at once.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <stop_token>
#include <string>

#include "src/common/base/result.h"
#include "src/common/kube/http_transport.h"
#include "src/common/kube/types.h"
#include "src/common/kube/waiter.h"

namespace dormouse::cli {

struct Followed {
  kube::ResourceType type;
  kube::ObjectKey key;
  std::string uid;
};

/// Sees the object, perhaps the same version twice; false ends the following.
using OnObject = std::function<bool(const nlohmann::json& object)>;

/// Success once `on_object` said false. kNotFound when the object of that UID is gone; kPermission
/// when it may not be read or watched; kCancelled after `stop`. All else is tried again, with
/// back-off, until `stop`.
[[nodiscard]] Result<> Follow(kube::HttpTransport& transport, const Followed& what,
                              const OnObject& on_object, const std::stop_token& stop,
                              const Clock& clock = Clock::System(),
                              kube::Waiter& waiter = kube::Waiter::System());

}  // namespace dormouse::cli
