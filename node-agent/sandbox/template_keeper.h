// The agent's reconciler of SnapshotTemplates that are on its node: asks the source for a capture,
// tells what came of it, and removes what nobody needs.
//
// The capture itself is a step of the source's own plan (agent.h), so that it cannot meet a suspend
// or a deletion half way. Thread-safe: Reconcile may run for different UIDs on any number of
// threads, never for one UID on two.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/record/template_store.h"
#include "node-agent/sandbox/agent.h"
#include "node-agent/sandbox/control_plane.h"
#include "node-agent/sandbox/template_status.h"
#include "src/common/api/snapshot_template.h"
#include "src/common/base/clock.h"
#include "src/common/kube/controller_loop.h"
#include "src/common/kube/store.h"

namespace dormouse {

class TemplateKeeper {
 public:
  /// All must outlive it.
  TemplateKeeper(AgentOptions options, Agent& agent, Machine& machine, RecordStore& records,
                 TemplateStore& templates, kube::Store<api::SnapshotTemplate>& objects,
                 kube::Store<api::Sandbox>& sandboxes, TemplateControlPlane& control_plane,
                 const Clock& clock = Clock::System());

  /// Every UID there is something to do for, when the caches have synced.
  [[nodiscard]] std::vector<std::string> KnownUids() const;
  Result<kube::ReconcileResult> Reconcile(const std::string& uid);

 private:
  using Outcome = Result<kube::ReconcileResult>;
  Outcome ReconcileWanted(const api::SnapshotTemplate& object, const api::SandboxUid& uid);
  Outcome ReconcileDeletion(const api::SnapshotTemplate& cached, const api::SandboxUid& uid);
  Outcome ReconcileOrphan(const TemplateRecord& record);
  /// Says that it is a newer agent's, and leaves everything alone.
  Outcome ReconcileNewer(const api::SnapshotTemplate& object);
  Outcome AskSource(const api::SnapshotTemplate& object, const api::SandboxUid& uid);
  Outcome GiveUp(const api::SnapshotTemplate& object, const api::SandboxUid& uid, Problem problem);
  Result<> Tell(const api::SnapshotTemplate& object, TemplateStatusInputs inputs);
  /// Sandboxes that need the template's files, or are about to, by name.
  [[nodiscard]] std::vector<std::string> HoldersOf(const api::SandboxUid& uid,
                                                   const kube::ObjectKey& key) const;

  const AgentOptions options_;
  Agent& agent_;
  Machine& machine_;
  RecordStore& records_;
  TemplateStore& templates_;
  kube::Store<api::SnapshotTemplate>& objects_;
  kube::OwnWrites<api::SnapshotTemplate> own_writes_;  ///< by UID
  kube::Store<api::Sandbox>& sandboxes_;
  TemplateControlPlane& control_plane_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  /// As our own last write returned it, while that is ahead of the cache.
  std::map<std::string, api::SnapshotTemplate> latest_;
};

}  // namespace dormouse
