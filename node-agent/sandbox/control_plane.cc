#include "node-agent/sandbox/control_plane.h"

#include <nlohmann/json.hpp>

#include "src/common/base/log.h"

namespace dormouse {
namespace {

// A conflict means that somebody else wrote in between; three in a row mean that we are not alone
// for long.
constexpr int kWriteAttempts = 4;

// What differs between the kinds whose status is ours.
struct SandboxKind {
  using Object = api::Sandbox;
  static constexpr char kName[] = "Sandbox";
  static kube::ResourceType Type() { return {api::kGroup, api::kVersion, "sandboxes", true}; }
  static Result<Object> Parse(const nlohmann::json& object) { return api::ParseSandbox(object); }
};
struct TemplateKind {
  using Object = api::SnapshotTemplate;
  static constexpr char kName[] = "SnapshotTemplate";
  static kube::ResourceType Type() {
    return {api::kGroup, api::kVersion, "snapshottemplates", true};
  }
  static Result<Object> Parse(const nlohmann::json& object) {
    return api::ParseSnapshotTemplate(object);
  }
};

template <typename Kind>
Result<std::optional<typename Kind::Object>> Decode(const std::string& text) {
  const auto object = nlohmann::json::parse(text, nullptr, false);
  if (object.is_discarded())
    return Fail(ErrorCode::kUnavailable, "the API server's answer is not JSON");
  DORMOUSE_ASSIGN(auto parsed, Kind::Parse(object));
  return std::optional<typename Kind::Object>(std::move(parsed));
}

template <typename Kind>
Result<std::optional<typename Kind::Object>> Read(kube::Client& client,
                                                  const kube::ObjectKey& key) {
  auto text = client.Get(Kind::Type(), key);
  if (text) return Decode<Kind>(*text);
  if (text.error().code() == ErrorCode::kNotFound) return std::optional<typename Kind::Object>();
  return Fail(text.error());
}

// What a deletion waits for, and what a user looks at first: every version of the CRD has them.
nlohmann::json Essence(const nlohmann::json& status) {
  nlohmann::json conditions = nlohmann::json::array();
  for (const nlohmann::json& condition : status.value("conditions", nlohmann::json::array())) {
    const std::string type = condition.at("type");
    if (type == api::condition::kReady || type == api::condition::kReleased)
      conditions.push_back(condition);
  }
  return {{"conditions", std::move(conditions)}};
}

template <typename Kind>
Result<std::optional<typename Kind::Object>> Write(kube::Client& client,
                                                   const kube::ObjectMeta& meant,
                                                   nlohmann::json status) {
  kube::ObjectMeta checked = meant;
  bool whole = true;
  Error last(ErrorCode::kConflict, "status of " + checked.key().ToString());
  for (int attempt = 0; attempt < kWriteAttempts; ++attempt) {
    kube::ApplyOptions options;
    options.subresource = "status";
    options.resource_version = checked.resource_version;
    auto text = client.Apply(Kind::Type(), checked.key(),
                             api::StatusApplyBody(Kind::kName, checked, status), options);
    if (text) return Decode<Kind>(*text);
    if (text.error().code() == ErrorCode::kNotFound) return std::optional<typename Kind::Object>();
    last = text.error();
    if (last.code() == ErrorCode::kInvalid && whole) {
      log::Warning(
          "the API server's CRD is of another version: only the essence of a status is told",
          {{"object", checked.key().ToString()}, {"error", last.message()}});
      status = Essence(status);
      whole = false;
      continue;
    }
    if (last.code() != ErrorCode::kConflict) return Fail(last);
    DORMOUSE_ASSIGN(const auto live, Read<Kind>(client, checked.key()));
    if (!live || live->meta.uid != meant.uid) return std::optional<typename Kind::Object>();
    checked = live->meta;
  }
  return Fail(last);
}

template <typename Kind>
void Tell(kube::EventRecorder& events, const kube::ObjectMeta& about, bool warning,
          std::string_view reason, std::string_view note) {
  events.Record({api::kApiVersion, Kind::kName, about.ns, about.name, about.uid},
                warning ? kube::EventType::kWarning : kube::EventType::kNormal, std::string(reason),
                std::string(reason), std::string(note));
}

}  // namespace

Result<std::optional<api::Sandbox>> KubeControlPlane::ReadLive(const kube::ObjectKey& key) {
  return Read<SandboxKind>(client_, key);
}

Result<std::optional<api::Sandbox>> KubeControlPlane::WriteStatus(
    const api::Sandbox& sandbox, const api::SandboxStatus& status) {
  return Write<SandboxKind>(client_, sandbox.meta, api::AgentStatusToJson(status));
}

void KubeControlPlane::Event(const api::Sandbox& sandbox, bool warning, std::string_view reason,
                             std::string_view note) {
  Tell<SandboxKind>(events_, sandbox.meta, warning, reason, note);
}

Result<std::optional<api::SnapshotTemplate>> KubeTemplateControlPlane::ReadLive(
    const kube::ObjectKey& key) {
  return Read<TemplateKind>(client_, key);
}

Result<std::optional<api::SnapshotTemplate>> KubeTemplateControlPlane::WriteStatus(
    const api::SnapshotTemplate& object, const api::SnapshotTemplateStatus& status) {
  return Write<TemplateKind>(client_, object.meta, api::AgentStatusToJson(status));
}

void KubeTemplateControlPlane::Event(const api::SnapshotTemplate& object, bool warning,
                                     std::string_view reason, std::string_view note) {
  Tell<TemplateKind>(events_, object.meta, warning, reason, note);
}

}  // namespace dormouse
