#include "controller/templates/template_api.h"

#include <nlohmann/json.hpp>

#include "controller/lifecycle/guarded_patch.h"
#include "controller/lifecycle/sandbox_api.h"
#include "src/common/base/json_text.h"

namespace dormouse::controller {
namespace {

using nlohmann::json;

class ServerTemplateApi : public TemplateApi {
 public:
  ServerTemplateApi(kube::Client& client, kube::EventRecorder& events)
      : client_(client), events_(events) {}

  Result<api::SnapshotTemplate> Read(const kube::ObjectKey& key) override {
    DORMOUSE_ASSIGN(const json object, ParseAnswer(client_.Get(kSnapshotTemplates, key)));
    return api::ParseSnapshotTemplate(object);
  }

  Result<api::Sandbox> ReadSource(const kube::ObjectKey& key) override {
    DORMOUSE_ASSIGN(const json object, ParseAnswer(client_.Get(kSandboxes, key)));
    return api::ParseSandbox(object);
  }

  Result<kube::ObjectMeta> Claim(const kube::ObjectMeta& checked) override {
    DORMOUSE_ASSIGN(
        const json object,
        ParseAnswer(client_.JsonPatch(kSnapshotTemplates, checked.key(), ClaimPatch(checked))));
    return kube::ParseObjectMeta(object);
  }

  Result<> RemoveFinalizer(const kube::ObjectMeta& checked) override {
    const std::string patch = RemoveFinalizerPatch(checked);
    if (patch.empty()) return {};
    return UnlessGone(client_.JsonPatch(kSnapshotTemplates, checked.key(), patch));
  }

  Result<kube::ResourceVersion> ApplyStatus(const kube::ObjectMeta& checked,
                                            const api::SnapshotTemplateStatus& status) override {
    const std::string body =
        api::StatusApplyBody("SnapshotTemplate", checked, api::ControllerStatusToJson(status));
    kube::ApplyOptions options;
    options.subresource = "status";
    options.resource_version = checked.resource_version;
    options.field_manager = api::kControllerManager;
    return VersionOf(client_.Apply(kSnapshotTemplates, checked.key(), body, options));
  }

  Result<kube::ResourceVersion> MarkSettled(const kube::ObjectMeta& checked) override {
    return VersionOf(client_.MergePatch(
        kSnapshotTemplates, checked.key(),
        JsonText(AnnotationPatch(checked, api::kSourceSettledAnnotation, checked.uid))));
  }

  Result<> Delete(const kube::ObjectMeta& checked) override {
    return UnlessGone(
        client_.Delete(kSnapshotTemplates, checked.key(),
                       {.uid = checked.uid, .resource_version = checked.resource_version}));
  }

  Result<> SuspendSource(const kube::ObjectMeta& checked,
                         const std::string& template_uid) override {
    json patch = AnnotationPatch(checked, api::kSuspendedForAnnotation, template_uid);
    patch["spec"] = {{"operatingMode", api::OperatingModeName(api::OperatingMode::kSuspended)}};
    const auto answer = client_.MergePatch(kSandboxes, checked.key(), JsonText(patch));
    if (!answer) return Fail(answer.error());
    return {};
  }

  Result<> DeleteSource(const kube::ObjectMeta& checked) override {
    return UnlessGone(client_.Delete(kSandboxes, checked.key(), {.uid = checked.uid}));
  }

  void Record(const api::SnapshotTemplate& about, kube::EventType type, std::string_view reason,
              std::string_view action, const std::string& note) override {
    const kube::EventSubject subject{api::kApiVersion, "SnapshotTemplate", about.meta.ns,
                                     about.meta.name, about.meta.uid};
    events_.Record(subject, type, std::string(reason), std::string(action), note);
  }

 private:
  kube::Client& client_;
  kube::EventRecorder& events_;
};

}  // namespace

std::unique_ptr<TemplateApi> MakeTemplateApi(kube::Client& client, kube::EventRecorder& events) {
  return std::make_unique<ServerTemplateApi>(client, events);
}

}  // namespace dormouse::controller
