#include "node-agent/node/node_publisher.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/common/api/sandbox.h"
#include "src/common/base/json_text.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

const kube::ResourceType kSandboxNodes{api::kGroup, api::kVersion, "sandboxnodes", false};
constexpr char kKind[] = "SandboxNode";
constexpr milliseconds kFirstRetry{1'000};
constexpr milliseconds kLastRetry{30'000};

json Identity(const NodeName& name) {
  return {{"apiVersion", api::kApiVersion}, {"kind", kKind}, {"metadata", {{"name", name.text()}}}};
}

}  // namespace

NodePublisher::NodePublisher(kube::Client& client, NodePublisherOptions options, Observe observe)
    : client_(client),
      options_(std::move(options)),
      observe_(std::move(observe)),
      key_{"", options_.name.text()} {}

NodePublisher::~NodePublisher() {
  Stop();
}

Result<> NodePublisher::Verify() {
  auto text = client_.Get(kSandboxNodes, key_);
  if (!text && text.error().code() == ErrorCode::kNotFound) {
    text = client_.Create(kSandboxNodes, "", JsonText(Identity(options_.name)));
    if (text) log::Info("made the SandboxNode", {{"node", options_.name.text()}});
  }
  if (!text) return Fail(text.error());
  const json object = json::parse(*text, nullptr, false);
  auto node = api::ParseSandboxNode(object);
  // What cannot be read was not written by us, or by another version: written anew.
  known_ = node ? node->status : api::SandboxNodeStatus{};
  verified_at_ = options_.clock->Now();
  return {};
}

Result<> NodePublisher::Write(const api::SandboxNodeStatus& status) {
  json body = Identity(options_.name);
  body["status"] = api::SandboxNodeStatusToJson(status);
  kube::ApplyOptions apply;
  apply.subresource = "status";
  apply.field_manager = api::kAgentManager;
  const auto written = client_.Apply(kSandboxNodes, key_, JsonText(body), apply);
  if (!written) {
    if (written.error().code() == ErrorCode::kNotFound)
      known_.reset();  // somebody deleted it: made anew
    return Fail(written.error());
  }
  known_ = status;
  written_at_ = options_.clock->Now();
  return {};
}

milliseconds NodePublisher::Failed(const Error& error) {
  const int doublings = std::min(failures_++, 10);
  milliseconds wait = std::min(kLastRetry, kFirstRetry * (1 << doublings));
  if (error.retry_after()) wait = std::max(wait, milliseconds(*error.retry_after()));
  if (failures_ == 1 || wait == kLastRetry) {
    log::Warning("cannot publish the SandboxNode",
                 {{"node", options_.name.text()}, {"error", error.message()}});
  }
  return wait;
}

milliseconds NodePublisher::Tick() {
  const MonotonicTime now = options_.clock->Now();
  const uint64_t beginnings = options_.lease_beginnings();
  if (!known_ || !verified_at_ || now - *verified_at_ >= options_.verify_every ||
      beginnings != lease_beginnings_) {
    if (const Result<> verified = Verify(); !verified) return Failed(verified.error());
    lease_beginnings_ = beginnings;
  }
  const auto status = ComputeNodeStatus(options_.facts, options_.allowance, options_.endpoint,
                                        observe_(), known_->conditions, options_.clock->WallNow());
  if (status != *known_) {
    const milliseconds spacing =
        DifferOnlyInDisk(status, *known_) ? options_.disk_spacing : options_.write_spacing;
    if (written_at_ && now - *written_at_ < spacing) {
      const auto rest = std::chrono::ceil<milliseconds>(spacing - (now - *written_at_));
      return std::min(rest, options_.look_every);
    }
    if (const Result<> written = Write(status); !written) return Failed(written.error());
  }
  failures_ = 0;
  return options_.look_every;
}

void NodePublisher::Start() {
  thread_ = std::jthread([this](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const milliseconds wait = Tick();
      std::unique_lock lock(mutex_);
      stopped_.wait_for(lock, stop, wait, [] { return false; });
    }
  });
}

void NodePublisher::Stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

kube::HeartbeatOptions NodeLeaseOptions(const NodeName& name, const std::string& ns) {
  kube::HeartbeatOptions options;
  options.lease = {ns, name.LeaseName()};
  options.holder = name.text();
  return options;
}

}  // namespace dormouse
