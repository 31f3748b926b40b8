// What the agent asks of the API server and tells it about its sandboxes, behind a seam.
//
// Thread-safe. Every write carries the resourceVersion of the object whose UID was checked, so none
// can reach a successor of the same name (docs/structure.md, invariant 13).
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "src/common/api/sandbox.h"
#include "src/common/api/snapshot_template.h"
#include "src/common/base/result.h"
#include "src/common/kube/client.h"
#include "src/common/kube/events.h"

namespace dormouse {

class ControlPlane {
 public:
  virtual ~ControlPlane() = default;
  /// A live, consistent read. Nothing when no object of that name exists.
  virtual Result<std::optional<api::Sandbox>> ReadLive(const kube::ObjectKey& key) = 0;
  /// Applies the agent's part of the status. `sandbox` says which object was meant: on a conflict
  /// it is read again and its UID compared. Where the CRD is older than this agent and refuses it,
  /// the conditions Ready and Released are told alone, so that a deletion ends. Returns the object
  /// as it is then; nothing when it is gone or replaced.
  virtual Result<std::optional<api::Sandbox>> WriteStatus(const api::Sandbox& sandbox,
                                                          const api::SandboxStatus& status) = 0;
  virtual void Event(const api::Sandbox& sandbox, bool warning, std::string_view reason,
                     std::string_view note) = 0;
};

/// The same for templates.
class TemplateControlPlane {
 public:
  virtual ~TemplateControlPlane() = default;
  virtual Result<std::optional<api::SnapshotTemplate>> ReadLive(const kube::ObjectKey& key) = 0;
  virtual Result<std::optional<api::SnapshotTemplate>> WriteStatus(
      const api::SnapshotTemplate& object, const api::SnapshotTemplateStatus& status) = 0;
  virtual void Event(const api::SnapshotTemplate& object, bool warning, std::string_view reason,
                     std::string_view note) = 0;
};

class KubeControlPlane : public ControlPlane {
 public:
  KubeControlPlane(kube::Client& client, kube::EventRecorder& events)
      : client_(client), events_(events) {}
  Result<std::optional<api::Sandbox>> ReadLive(const kube::ObjectKey& key) override;
  Result<std::optional<api::Sandbox>> WriteStatus(const api::Sandbox& sandbox,
                                                  const api::SandboxStatus& status) override;
  void Event(const api::Sandbox& sandbox, bool warning, std::string_view reason,
             std::string_view note) override;

 private:
  kube::Client& client_;
  kube::EventRecorder& events_;
};

class KubeTemplateControlPlane : public TemplateControlPlane {
 public:
  KubeTemplateControlPlane(kube::Client& client, kube::EventRecorder& events)
      : client_(client), events_(events) {}
  Result<std::optional<api::SnapshotTemplate>> ReadLive(const kube::ObjectKey& key) override;
  Result<std::optional<api::SnapshotTemplate>> WriteStatus(
      const api::SnapshotTemplate& object, const api::SnapshotTemplateStatus& status) override;
  void Event(const api::SnapshotTemplate& object, bool warning, std::string_view reason,
             std::string_view note) override;

 private:
  kube::Client& client_;
  kube::EventRecorder& events_;
};

}  // namespace dormouse
