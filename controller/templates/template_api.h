// The writes that the controller makes to a SnapshotTemplate and to its source, and the live reads
// before them: the seam between deciding and doing. The real one speaks to the API server; tests
// have one in memory.
//
// Thread-safe; calls block. Every write carries the resourceVersion of `checked` unless it says
// otherwise, so that it reaches no successor of the same name and undoes nobody's later write:
// kConflict then, and nothing has changed.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "src/common/api/sandbox.h"
#include "src/common/api/snapshot_template.h"
#include "src/common/kube/client.h"
#include "src/common/kube/events.h"

namespace dormouse::controller {

class TemplateApi {
 public:
  virtual ~TemplateApi() = default;

  /// Consistent reads. kNotFound when there is none of that name.
  virtual Result<api::SnapshotTemplate> Read(const kube::ObjectKey& key) = 0;
  virtual Result<api::Sandbox> ReadSource(const kube::ObjectKey& key) = 0;

  /// ClaimPatch (guarded_patch.h); returns what the metadata is now.
  virtual Result<kube::ObjectMeta> Claim(const kube::ObjectMeta& checked) = 0;
  virtual Result<> RemoveFinalizer(const kube::ObjectMeta& checked) = 0;
  /// Server-side apply of the controller's own fields. Returns the version that holds them.
  virtual Result<kube::ResourceVersion> ApplyStatus(const kube::ObjectMeta& checked,
                                                    const api::SnapshotTemplateStatus& status) = 0;
  /// Writes api::kSourceSettledAnnotation. Returns the version that has it.
  virtual Result<kube::ResourceVersion> MarkSettled(const kube::ObjectMeta& checked) = 0;
  /// Success also when it is gone.
  virtual Result<> Delete(const kube::ObjectMeta& checked) = 0;

  /// Sets operatingMode to Suspended and, in the same write, api::kSuspendedForAnnotation to
  /// `template_uid`.
  virtual Result<> SuspendSource(const kube::ObjectMeta& checked,
                                 const std::string& template_uid) = 0;
  /// By UID alone: its agent may write its status at any time. Success also when it is gone.
  virtual Result<> DeleteSource(const kube::ObjectMeta& checked) = 0;

  /// Never blocks, never fails.
  virtual void Record(const api::SnapshotTemplate& about, kube::EventType type,
                      std::string_view reason, std::string_view action,
                      const std::string& note) = 0;
};

/// `client` and `events` must outlive it.
[[nodiscard]] std::unique_ptr<TemplateApi> MakeTemplateApi(kube::Client& client,
                                                           kube::EventRecorder& events);

}  // namespace dormouse::controller
