#include "controller/lifecycle/sandbox_api.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace dormouse::controller {

using nlohmann::json;

const kube::ResourceType kSandboxes{api::kGroup, api::kVersion, "sandboxes", true};
const kube::ResourceType kSandboxNodes{api::kGroup, api::kVersion, "sandboxnodes", false};
const kube::ResourceType kSnapshotTemplates{api::kGroup, api::kVersion, "snapshottemplates", true};

namespace {

/// The API server's own answer: it is JSON unless something between us and it is broken.
Result<json> ParseAnswer(const Result<std::string>& answer) {
  if (!answer) return Fail(answer.error());
  json object = json::parse(*answer, nullptr, false);
  if (object.is_discarded())
    return Fail(ErrorCode::kUnavailable, "the API server's answer is not JSON");
  return object;
}

/// A JSON patch that fails unless the object is exactly the one that was checked. (A UID in a patch
/// of /status would be ignored, a `test` is not: docs of Kubernetes 1.36,
/// tests/api/controller_test.py.)
json GuardedPatch(const kube::ObjectMeta& checked) {
  return json::array({{{"op", "test"}, {"path", "/metadata/uid"}, {"value", checked.uid}},
                      {{"op", "test"},
                       {"path", "/metadata/resourceVersion"},
                       {"value", checked.resource_version.text()}}});
}

class ServerApi : public SandboxApi {
 public:
  ServerApi(kube::Client& client, kube::EventRecorder& events) : client_(client), events_(events) {}

  Result<api::Sandbox> Read(const kube::ObjectKey& key) override {
    DORMOUSE_ASSIGN(const json object, ParseAnswer(client_.Get(kSandboxes, key)));
    return api::ParseSandbox(object);
  }

  Result<kube::ObjectMeta> AddFinalizer(const kube::ObjectMeta& checked) override {
    json patch = GuardedPatch(checked);
    if (checked.finalizers.empty()) {
      patch.push_back({{"op", "add"},
                       {"path", "/metadata/finalizers"},
                       {"value", json::array({api::kCleanupFinalizer})}});
    } else {
      patch.push_back(
          {{"op", "add"}, {"path", "/metadata/finalizers/-"}, {"value", api::kCleanupFinalizer}});
    }
    DORMOUSE_ASSIGN(const json object,
                    ParseAnswer(client_.JsonPatch(kSandboxes, checked.key(), patch.dump())));
    return kube::ParseObjectMeta(object);
  }

  Result<> RemoveFinalizer(const kube::ObjectMeta& checked) override {
    const auto slot =
        std::find(checked.finalizers.begin(), checked.finalizers.end(), api::kCleanupFinalizer);
    if (slot == checked.finalizers.end()) return {};
    const std::string path =
        "/metadata/finalizers/" + std::to_string(slot - checked.finalizers.begin());
    json patch = GuardedPatch(checked);
    patch.push_back({{"op", "test"}, {"path", path}, {"value", api::kCleanupFinalizer}});
    patch.push_back({{"op", "remove"}, {"path", path}});
    auto answer = client_.JsonPatch(kSandboxes, checked.key(), patch.dump());
    if (!answer && answer.error().code() == ErrorCode::kNotFound) return {};
    if (!answer) return Fail(answer.error());
    return {};
  }

  Result<kube::ResourceVersion> ApplyStatus(const kube::ObjectMeta& checked,
                                            const api::SandboxStatus& status) override {
    const std::string body =
        api::StatusApplyBody("Sandbox", checked, api::ControllerStatusToJson(status));
    kube::ApplyOptions options;
    options.subresource = "status";
    options.resource_version = checked.resource_version;
    options.field_manager = api::kControllerManager;
    return VersionOf(client_.Apply(kSandboxes, checked.key(), body, options));
  }

  Result<kube::ResourceVersion> ReplaceStatus(const kube::ObjectMeta& checked,
                                              const api::SandboxStatus& status) override {
    json patch = GuardedPatch(checked);
    patch.push_back(
        {{"op", "replace"}, {"path", "/status"}, {"value", api::ControllerStatusToJson(status)}});
    return VersionOf(
        client_.JsonPatch(kSandboxes, checked.key(), patch.dump(),
                          {.subresource = "status", .field_manager = api::kControllerManager}));
  }

  void Record(const api::Sandbox& about, kube::EventType type, std::string_view reason,
              std::string_view action, const std::string& note) override {
    const kube::EventSubject subject{api::kApiVersion, "Sandbox", about.meta.ns, about.meta.name,
                                     about.meta.uid};
    events_.Record(subject, type, std::string(reason), std::string(action), note);
  }

 private:
  static Result<kube::ResourceVersion> VersionOf(const Result<std::string>& answer) {
    DORMOUSE_ASSIGN(const json object, ParseAnswer(answer));
    DORMOUSE_ASSIGN(const kube::ObjectMeta meta, kube::ParseObjectMeta(object));
    return meta.resource_version;
  }

  kube::Client& client_;
  kube::EventRecorder& events_;
};

}  // namespace

std::unique_ptr<SandboxApi> MakeSandboxApi(kube::Client& client, kube::EventRecorder& events) {
  return std::make_unique<ServerApi>(client, events);
}

}  // namespace dormouse::controller
