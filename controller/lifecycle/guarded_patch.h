// The patches by which the controller writes to an object that it has checked: each fails, with
// kConflict, unless the object is exactly the one that was looked at.
//
// Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "src/common/base/result.h"
#include "src/common/kube/object_meta.h"

namespace dormouse::controller {

/// The API server's own answer; kUnavailable where it is not JSON, as something between us and it
/// is broken then.
Result<nlohmann::json> ParseAnswer(const Result<std::string>& answer);
/// The resourceVersion in such an answer.
Result<kube::ResourceVersion> VersionOf(const Result<std::string>& answer);

/// Gone already is as good as done.
template <typename Answer>
Result<> UnlessGone(const Result<Answer>& done) {
  if (!done && done.error().code() != ErrorCode::kNotFound) return Fail(done.error());
  return {};
}

/// A merge patch that sets the annotation `name`, or with an empty `value` takes it away, for more
/// to be added. On the main resource a wrong UID in it is refused, not ignored.
[[nodiscard]] nlohmann::json AnnotationPatch(const kube::ObjectMeta& checked, const char* name,
                                             const std::string& value);
/// A JSON patch of two `test`s, for more operations to be appended. (A UID in a merge patch or an
/// apply of /status would be ignored, a `test` is not: docs of Kubernetes 1.36,
/// tests/api/test_controller.py.)
[[nodiscard]] nlohmann::json GuardedPatch(const kube::ObjectMeta& checked);
/// Whether `checked` has our finalizer, and no word about a node that it is not on yet.
[[nodiscard]] bool IsClaimed(const kube::ObjectMeta& checked);
/// Makes it so: appends the finalizer, takes the annotation kNodeIsGoneAnnotation away. That came
/// with a copy, or has been acted upon.
[[nodiscard]] std::string ClaimPatch(const kube::ObjectMeta& checked);
/// Takes exactly our slot out; empty where `checked` does not have it.
[[nodiscard]] std::string RemoveFinalizerPatch(const kube::ObjectMeta& checked);

}  // namespace dormouse::controller
