#include "node-agent/sandbox/control_plane.h"

#include <nlohmann/json.hpp>

namespace dormouse {
namespace {

// A conflict means that somebody else wrote in between; three in a row mean that we are not alone
// for long.
constexpr int kWriteAttempts = 4;

const kube::ResourceType kSandboxes{api::kGroup, api::kVersion, "sandboxes", true};

Result<api::Sandbox> Decode(const std::string& text) {
  const auto object = nlohmann::json::parse(text, nullptr, false);
  if (object.is_discarded())
    return Fail(ErrorCode::kUnavailable, "the API server's answer is not JSON");
  return api::ParseSandbox(object);
}

}  // namespace

Result<std::optional<api::Sandbox>> KubeControlPlane::ReadLive(const kube::ObjectKey& key) {
  auto text = client_.Get(kSandboxes, key);
  if (!text) {
    if (text.error().code() == ErrorCode::kNotFound) return std::optional<api::Sandbox>();
    return Fail(text.error());
  }
  DORMOUSE_ASSIGN(auto sandbox, Decode(*text));
  return std::optional<api::Sandbox>(std::move(sandbox));
}

Result<std::optional<api::Sandbox>> KubeControlPlane::WriteStatus(
    const api::Sandbox& sandbox, const api::SandboxStatus& status) {
  kube::ObjectMeta checked = sandbox.meta;
  Error last(ErrorCode::kConflict, "status of " + checked.key().ToString());
  for (int attempt = 0; attempt < kWriteAttempts; ++attempt) {
    kube::ApplyOptions options;
    options.subresource = "status";
    options.resource_version = checked.resource_version;
    const std::string body =
        api::StatusApplyBody("Sandbox", checked, api::AgentStatusToJson(status));
    auto text = client_.Apply(kSandboxes, checked.key(), body, options);
    if (text) {
      DORMOUSE_ASSIGN(auto written, Decode(*text));
      return std::optional<api::Sandbox>(std::move(written));
    }
    if (text.error().code() == ErrorCode::kNotFound) return std::optional<api::Sandbox>();
    if (text.error().code() != ErrorCode::kConflict) return Fail(text.error());
    last = text.error();
    DORMOUSE_ASSIGN(const auto live, ReadLive(checked.key()));
    if (!live || live->uid != sandbox.uid) return std::optional<api::Sandbox>();
    checked = live->meta;
  }
  return Fail(last);
}

void KubeControlPlane::Event(const api::Sandbox& sandbox, bool warning, std::string_view reason,
                             std::string_view note) {
  events_.Record(
      {api::kApiVersion, "Sandbox", sandbox.meta.ns, sandbox.meta.name, sandbox.uid.text()},
      warning ? kube::EventType::kWarning : kube::EventType::kNormal, std::string(reason),
      std::string(reason), std::string(note));
}

}  // namespace dormouse
