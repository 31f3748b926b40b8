// Reconciles SnapshotTemplates: gives each the node of its source, does to the source what
// `sourceAfterCapture` asks once it is captured, and ends those that expire or are deleted. The
// capture itself is the agent's.
//
// Reconcile runs on any number of workers, each key on one at a time (the queue sees to it). It
// acts as SandboxController does: every write names the version that was checked, a live read comes
// before anything is undone or given away, and it waits for the cache to show its own last write.
//
// What a controller that dies leaves behind, the next one ends: a finalizer on a template without a
// node is placed or, when it is deleted, released; a source that was suspended for the template
// says so in an annotation of its own, written together with the mode, so that a user who has woken
// it since is not overruled.
#pragma once

#include <chrono>
#include <string>

#include "controller/nodes/node_health.h"
#include "controller/stores.h"
#include "controller/templates/template_api.h"
#include "controller/templates/template_step.h"
#include "src/common/kube/controller_loop.h"
#include "src/common/kube/own_writes.h"
#include "src/common/kube/work_queue.h"

namespace dormouse::controller {

class TemplateController {
 public:
  struct Options {
    /// How long the cache may take to show a change before the key is looked at again.
    std::chrono::nanoseconds cache_patience = std::chrono::milliseconds(200);
  };

  /// All must outlive it. Adds an index to `templates` and subscribes to both stores: before their
  /// reflectors start. `sandboxes` has the index kByTemplate.
  TemplateController(SnapshotTemplateStore& templates, SandboxStore& sandboxes, NodeHealth& health,
                     TemplateApi& api, kube::WorkQueue& queue, const Clock& clock, Options options);

  /// `key` is "namespace/name".
  Result<kube::ReconcileResult> Reconcile(const std::string& key);

 private:
  using Outcome = Result<kube::ReconcileResult>;

  void OnTemplate(const SnapshotTemplateStore::Change& change);
  void OnSandbox(const SandboxStore::Change& change);
  [[nodiscard]] TemplateDecision Decide(const api::SnapshotTemplate& object) const;

  Outcome Place(const api::SnapshotTemplate& object);
  Outcome ClaimAgain(const api::SnapshotTemplate& object);
  Outcome Report(const api::SnapshotTemplate& object, const TemplateDecision& decision);
  /// Steps that undo something, or act on the source: on a live read that asks for the same step.
  Outcome ActLive(const api::SnapshotTemplate& cached, TemplateStep step);
  Outcome SettleSource(const api::SnapshotTemplate& live);
  Outcome Expire(const api::SnapshotTemplate& live);

  SnapshotTemplateStore& templates_;
  SandboxStore& sandboxes_;
  NodeHealth& health_;
  TemplateApi& api_;
  kube::WorkQueue& queue_;
  const Clock& clock_;
  const Options options_;

  kube::OwnWrites<api::SnapshotTemplate> own_writes_;
};

}  // namespace dormouse::controller
