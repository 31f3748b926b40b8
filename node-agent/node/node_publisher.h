// Keeps this node's SandboxNode object: makes it where it is missing, and writes its status by
// server-side apply when it has changed, as seldom as it can. Liveness is the Lease's business (a
// kube::Heartbeat with NodeLeaseOptions), so nothing is written while nothing happens.
//
// Labels, spec and the owner (the Kubernetes Node) are the controller's and people's: never sent.
// Tick belongs to one thread at a time; Start runs one.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "node-agent/node/node_facts.h"
#include "node-agent/node/node_name.h"
#include "node-agent/node/node_status.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"
#include "src/common/kube/client.h"
#include "src/common/kube/lease.h"

namespace dormouse {

struct NodePublisherOptions {
  NodeName name;
  NodeFacts facts;
  NodeAllowance allowance;
  std::string endpoint;  ///< host:port at which the controller reaches this agent; may be empty
  std::chrono::milliseconds look_every{5'000};     ///< how often it is compared
  std::chrono::milliseconds write_spacing{2'000};  ///< between two writes
  std::chrono::milliseconds disk_spacing{
      60'000};  ///< between two writes for the sake of disk amounts alone
  std::chrono::milliseconds verify_every{
      5 * 60'000};  ///< whether the object is still there, and as written
  /// kube::Heartbeat::beginnings: while the Lease was old, the controller has said so in the
  /// object.
  std::function<uint64_t()> lease_beginnings = [] { return uint64_t{0}; };
  const Clock* clock = &Clock::System();
};

class NodePublisher {
 public:
  /// `observe` gathers what there is now; it is called on the publisher's thread and must not block
  /// for long.
  using Observe = std::function<NodeObservation()>;

  /// `client` must outlive the publisher.
  NodePublisher(kube::Client& client, NodePublisherOptions options, Observe observe);
  ~NodePublisher();
  NodePublisher(const NodePublisher&) = delete;
  NodePublisher& operator=(const NodePublisher&) = delete;

  /// Does what is due and returns the time until it should be called again.
  std::chrono::milliseconds Tick();
  void Start();
  void Stop();

 private:
  Result<> Verify();
  Result<> Write(const api::SandboxNodeStatus& status);
  [[nodiscard]] std::chrono::milliseconds Failed(const Error& error);

  kube::Client& client_;
  const NodePublisherOptions options_;
  const Observe observe_;
  const kube::ObjectKey key_;
  std::optional<api::SandboxNodeStatus>
      known_;  ///< what the API server has; nothing: to be verified
  std::optional<MonotonicTime> verified_at_, written_at_;
  uint64_t lease_beginnings_ = 0;  ///< as it was verified last
  int failures_ = 0;

  std::mutex mutex_;
  std::condition_variable_any stopped_;
  std::jthread thread_;
};

/// The node's Lease, dormouse-node-<name> in `ns`: renewed each 10 s, lost after 40 s.
[[nodiscard]] kube::HeartbeatOptions NodeLeaseOptions(const NodeName& name, const std::string& ns);

}  // namespace dormouse
