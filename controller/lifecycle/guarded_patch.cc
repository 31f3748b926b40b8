#include "controller/lifecycle/guarded_patch.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/common/api/sandbox.h"
#include "src/common/base/json_text.h"

namespace dormouse::controller {

using nlohmann::json;

Result<json> ParseAnswer(const Result<std::string>& answer) {
  if (!answer) return Fail(answer.error());
  json object = json::parse(*answer, nullptr, false);
  if (object.is_discarded())
    return Fail(ErrorCode::kUnavailable, "the API server's answer is not JSON");
  return object;
}

Result<kube::ResourceVersion> VersionOf(const Result<std::string>& answer) {
  DORMOUSE_ASSIGN(const json object, ParseAnswer(answer));
  DORMOUSE_ASSIGN(const kube::ObjectMeta meta, kube::ParseObjectMeta(object));
  return meta.resource_version;
}

json AnnotationPatch(const kube::ObjectMeta& checked, const char* name, const std::string& value) {
  return {{"metadata",
           {{"uid", checked.uid},
            {"resourceVersion", checked.resource_version.text()},
            {"annotations", {{name, value.empty() ? json(nullptr) : json(value)}}}}}};
}

json GuardedPatch(const kube::ObjectMeta& checked) {
  return json::array({{{"op", "test"}, {"path", "/metadata/uid"}, {"value", checked.uid}},
                      {{"op", "test"},
                       {"path", "/metadata/resourceVersion"},
                       {"value", checked.resource_version.text()}}});
}

bool IsClaimed(const kube::ObjectMeta& checked) {
  return checked.HasFinalizer(api::kCleanupFinalizer) &&
         !checked.annotations.contains(api::kNodeIsGoneAnnotation);
}

std::string ClaimPatch(const kube::ObjectMeta& checked) {
  json patch = GuardedPatch(checked);
  if (checked.annotations.contains(api::kNodeIsGoneAnnotation)) {
    // JSON pointers have ~1 for '/' (RFC 6901).
    std::string name = api::kNodeIsGoneAnnotation;
    name.replace(name.find('/'), 1, "~1");
    patch.push_back({{"op", "remove"}, {"path", "/metadata/annotations/" + name}});
  }
  if (checked.HasFinalizer(api::kCleanupFinalizer)) return JsonText(patch);
  if (checked.finalizers.empty()) {
    patch.push_back({{"op", "add"},
                     {"path", "/metadata/finalizers"},
                     {"value", json::array({api::kCleanupFinalizer})}});
  } else {
    patch.push_back(
        {{"op", "add"}, {"path", "/metadata/finalizers/-"}, {"value", api::kCleanupFinalizer}});
  }
  return JsonText(patch);
}

std::string RemoveFinalizerPatch(const kube::ObjectMeta& checked) {
  const auto slot =
      std::find(checked.finalizers.begin(), checked.finalizers.end(), api::kCleanupFinalizer);
  if (slot == checked.finalizers.end()) return {};
  const std::string path =
      "/metadata/finalizers/" + std::to_string(slot - checked.finalizers.begin());
  json patch = GuardedPatch(checked);
  patch.push_back({{"op", "test"}, {"path", path}, {"value", api::kCleanupFinalizer}});
  patch.push_back({{"op", "remove"}, {"path", path}});
  return JsonText(patch);
}

}  // namespace dormouse::controller
