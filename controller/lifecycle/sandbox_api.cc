#include "controller/lifecycle/sandbox_api.h"

#include <nlohmann/json.hpp>

#include "controller/lifecycle/guarded_patch.h"
#include "src/common/base/json_text.h"

namespace dormouse::controller {

using nlohmann::json;

const kube::ResourceType kSandboxes{api::kGroup, api::kVersion, "sandboxes", true};
const kube::ResourceType kSandboxNodes{api::kGroup, api::kVersion, "sandboxnodes", false};
const kube::ResourceType kSnapshotTemplates{api::kGroup, api::kVersion, "snapshottemplates", true};

namespace {

class ServerSandboxApi : public SandboxApi {
 public:
  ServerSandboxApi(kube::Client& client, kube::EventRecorder& events)
      : client_(client), events_(events) {}

  Result<api::Sandbox> Read(const kube::ObjectKey& key) override {
    DORMOUSE_ASSIGN(const json object, ParseAnswer(client_.Get(kSandboxes, key)));
    return api::ParseSandbox(object);
  }

  Result<kube::ObjectMeta> Claim(const kube::ObjectMeta& checked) override {
    DORMOUSE_ASSIGN(const json object,
                    ParseAnswer(client_.JsonPatch(kSandboxes, checked.key(), ClaimPatch(checked))));
    return kube::ParseObjectMeta(object);
  }

  Result<> RemoveFinalizer(const kube::ObjectMeta& checked) override {
    const std::string patch = RemoveFinalizerPatch(checked);
    if (patch.empty()) return {};
    return UnlessGone(client_.JsonPatch(kSandboxes, checked.key(), patch));
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
        client_.JsonPatch(kSandboxes, checked.key(), JsonText(patch),
                          {.subresource = "status", .field_manager = api::kControllerManager}));
  }

  Result<> Delete(const kube::ObjectMeta& checked) override {
    return UnlessGone(
        client_.Delete(kSandboxes, checked.key(),
                       {.uid = checked.uid, .resource_version = checked.resource_version}));
  }

  Result<kube::ResourceVersion> SetMode(const kube::ObjectMeta& checked, api::OperatingMode mode,
                                        const std::string& mark) override {
    json patch = AnnotationPatch(checked, api::kIdleSuspendAnnotation, mark);
    patch["spec"] = {{"operatingMode", api::OperatingModeName(mode)}};
    return VersionOf(client_.MergePatch(kSandboxes, checked.key(), JsonText(patch)));
  }

  void Record(const api::Sandbox& about, kube::EventType type, std::string_view reason,
              std::string_view action, const std::string& note) override {
    const kube::EventSubject subject{api::kApiVersion, "Sandbox", about.meta.ns, about.meta.name,
                                     about.meta.uid};
    events_.Record(subject, type, std::string(reason), std::string(action), note);
  }

 private:
  kube::Client& client_;
  kube::EventRecorder& events_;
};

}  // namespace

std::unique_ptr<SandboxApi> MakeSandboxApi(kube::Client& client, kube::EventRecorder& events) {
  return std::make_unique<ServerSandboxApi>(client, events);
}

}  // namespace dormouse::controller
