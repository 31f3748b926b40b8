// The writes that the controller makes to a Sandbox, and the one live read: the seam between
// deciding and doing. The real one speaks to the API server; tests have one in memory.
//
// Thread-safe; calls block. Every write carries the resourceVersion of `checked`, so that it
// reaches no successor of the same name and undoes nobody's later write: kConflict then, and
// nothing has changed.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "src/common/api/sandbox.h"
#include "src/common/kube/client.h"
#include "src/common/kube/events.h"

namespace dormouse::controller {

class SandboxApi {
 public:
  virtual ~SandboxApi() = default;

  /// A consistent read. kNotFound when there is none of that name.
  virtual Result<api::Sandbox> Read(const kube::ObjectKey& key) = 0;
  /// ClaimPatch (guarded_patch.h); returns what the metadata is now.
  virtual Result<kube::ObjectMeta> Claim(const kube::ObjectMeta& checked) = 0;
  virtual Result<> RemoveFinalizer(const kube::ObjectMeta& checked) = 0;
  /// Server-side apply of the controller's own fields. Returns the version that holds them.
  virtual Result<kube::ResourceVersion> ApplyStatus(const kube::ObjectMeta& checked,
                                                    const api::SandboxStatus& status) = 0;
  /// Puts the controller's fields in place of the whole status, an agent's fields included.
  virtual Result<kube::ResourceVersion> ReplaceStatus(const kube::ObjectMeta& checked,
                                                      const api::SandboxStatus& status) = 0;
  /// Deletes exactly what was checked; one that is gone counts as deleted.
  virtual Result<> Delete(const kube::ObjectMeta& checked) = 0;
  /// Sets spec.operatingMode, and with `mark` the annotation kIdleSuspendAnnotation; an empty one
  /// is taken away. Returns the version that holds it.
  virtual Result<kube::ResourceVersion> SetMode(const kube::ObjectMeta& checked,
                                                api::OperatingMode mode,
                                                const std::string& mark) = 0;
  /// Never blocks, never fails.
  virtual void Record(const api::Sandbox& about, kube::EventType type, std::string_view reason,
                      std::string_view action, const std::string& note) = 0;
};

extern const kube::ResourceType kSandboxes;
extern const kube::ResourceType kSandboxNodes;
extern const kube::ResourceType kSnapshotTemplates;

/// `client` and `events` must outlive it.
[[nodiscard]] std::unique_ptr<SandboxApi> MakeSandboxApi(kube::Client& client,
                                                         kube::EventRecorder& events);

}  // namespace dormouse::controller
