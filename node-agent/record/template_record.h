// What is known of a template on this node: where its files lie is paths.h, what they are is their
// manifest, and this is what a clone is resolved to.
//
// A boot snapshot is a template without an object: its UID is made of the shape that it is of, and
// its name is empty. Pure values; TemplateStore keeps them on disk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "node-agent/memory/manifest.h"
#include "node-agent/record/record.h"
#include "src/common/api/ids.h"
#include "src/common/api/sandbox.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"

namespace dormouse {

/// The shape is baked in: each clone has exactly that.
struct TemplateRecord : Shape {
  static constexpr int kVersion = 1;

  std::string cluster_id;
  api::SandboxUid uid;
  std::string ns, name;  ///< for people; of a boot snapshot the namespace that may use it, or none
  std::string source_uid;  ///< the sandbox that was frozen
  WallTime captured_at{};
  bool has_workload = false;  ///< a workload runs in the frozen machine

  std::string vmm_name, vmm_version, cpu_model;
  std::string guest_version;  ///< empty where the guest did not say

  CaptureFigures figures;
  bool retained = false;  ///< its object is gone, and asked for its files to stay
  std::optional<WallTime> orphaned_at;
  std::string unknown;  ///< as Record::unknown

  [[nodiscard]] bool IsBootSnapshot() const { return name.empty(); }
  [[nodiscard]] int64_t AllocatedBytes() const {
    return figures.memory_bytes + figures.store_bytes;
  }
  bool operator==(const TemplateRecord&) const = default;
};

[[nodiscard]] std::string EncodeTemplateRecord(const TemplateRecord& record);
/// Fails as DecodeRecord.
Result<TemplateRecord> DecodeTemplateRecord(std::string_view text);

/// What is left to say of a template that is captured from a sandbox: identity, time and traits of
/// the node are the caller's.
[[nodiscard]] TemplateRecord TemplateOf(const Record& source);
/// The record of a new sandbox that is a clone: identity and slot are the caller's.
[[nodiscard]] Record CloneOf(const TemplateRecord& source);

/// As its manifest says it, from memory.
[[nodiscard]] memory::Requirements NeedsOf(const TemplateRecord& source);

/// Why `spec` cannot be a clone of `source`, naming the field and what to write instead; nothing
/// when it can.
[[nodiscard]] std::optional<std::string> Contradiction(const api::SandboxSpec& spec,
                                                       const TemplateRecord& source);

/// The UID of the boot snapshot of a sandbox that was resolved to that shape. Sandboxes with the
/// same one boot alike. `ns`: empty where all namespaces of the node share; `traits`: what of the
/// node goes into a boot (Machine::BootTraits).
[[nodiscard]] api::SandboxUid BootSnapshotUid(const Shape& resolved, std::string_view ns,
                                              std::string_view traits);

}  // namespace dormouse
