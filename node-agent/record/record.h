// What the agent knows of a sandbox and the kernel cannot tell it: written before each act that
// makes or unmakes something (intent before act), read when the agent starts.
//
// The kernel and the process table come first: where the record and they disagree, they are right
// (docs/structure.md, invariant 1). Pure values here; RecordStore keeps them on disk.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/common/api/ids.h"
#include "src/common/api/sandbox.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"

namespace dormouse {

/// What a sandbox's resources are on the way to.
enum class Intent {
  kRun,        ///< disk, network and VMM exist, or are being made
  kSuspended,  ///< only files are left: a generation, or the disk alone where it never ran
  kStopped,    ///< ended (by its restart policy) or failed: only its files are kept
  kRelease,    ///< being deleted: everything goes
};
[[nodiscard]] std::string_view IntentName(Intent intent);

/// A process as it cannot be mistaken for a later one with the same number.
struct ProcessHint {
  int pid = 0;
  uint64_t start_time_ticks = 0;  ///< /proc/<pid>/stat, field 22
  std::string boot_id;            ///< /proc/sys/kernel/random/boot_id
  bool operator==(const ProcessHint&) const = default;
};

/// How the last VMM, or the workload in it, ended.
struct Ending {
  std::string reason;  ///< reasons.h
  std::string message;
  bool success = false;
  std::optional<int> exit_code;  ///< the workload's
  WallTime at{};
  bool operator==(const Ending&) const = default;
};

/// What the last capture took, for status.
struct CaptureFigures {
  int64_t memory_bytes = 0;     ///< that the memory file takes on disk
  int64_t written_bytes = 0;    ///< of it by this capture: what had diverged
  int64_t pause_window_ms = 0;  ///< from the VM's pause until all of it was on disk
  int64_t store_bytes = 0;      ///< that the disk's store takes
  /// None of a copy, nor of what was captured before they were measured. What had been done before
  /// the VM was found paused took 0.
  std::optional<api::CaptureStages> stages{};
  bool operator==(const CaptureFigures&) const = default;
};

/// What a sandbox was cloned from, template or boot snapshot: its generation 0.
struct Origin {
  api::SandboxUid template_uid;
  bool boot_snapshot = false;
  bool has_workload = false;  ///< a workload goes on in it that this sandbox did not start
  bool operator==(const Origin&) const = default;
};

/// A capture that is not for the sandbox itself.
struct TemplateCapture {
  api::SandboxUid template_uid;
  bool boot_snapshot = false;
  CaptureFigures figures;
  bool operator==(const TemplateCapture&) const = default;
};

/// What a machine is made of: resolved once, when its sandbox first came to this node, and frozen
/// with each template of it.
struct Shape {
  std::string image_name;
  std::string image_digest;  ///< sha256
  int64_t image_bytes = 0;   ///< what the image's file measured
  int64_t disk_bytes = 0;    ///< the device that the guest sees
  api::Resources resources;
  std::string vmm_digest, kernel_digest, initramfs_digest;
  bool operator==(const Shape&) const = default;
};

struct Record : Shape {
  static constexpr int kVersion = 1;

  std::string cluster_id;  ///< kube-system's UID: a record of another cluster is left alone
  api::SandboxUid uid;
  std::string ns, name;  ///< for people and for the live read; never for a path

  uint32_t slot = 0;  ///< gives the VMM's uid and the host-side address; unique on the node

  Intent intent = Intent::kRun;
  /// Of kStopped: operatingMode Stopped was carried out, so that Running starts it. One that has
  /// ended, and was not stopped since, stays as it is.
  bool stopped = false;
  /// spec.restartedAt as it was carried out, or was there when the sandbox came to this node.
  std::optional<WallTime> restarted_at;
  uint64_t incarnation = 0;  ///< of the VMM: counts every start
  std::optional<ProcessHint> vmm;
  int restart_count = 0;
  std::optional<Ending> ending;        ///< of the incarnation before, or of the sandbox (kStopped)
  std::optional<WallTime> started_at;  ///< first Ready of this incarnation
  bool was_ready = false;  ///< an incarnation was: its disk holds what a tenant has made
  std::optional<int64_t> boot_to_ready_ms;
  std::optional<WallTime> not_before;   ///< back-off: no new incarnation before this
  std::optional<WallTime> orphaned_at;  ///< its object was found to be gone

  // Sleep. A generation is a directory of files (memory/manifest.h); only those named here count.
  uint64_t generations = 0;  ///< how many captures were begun; the number of the last
  /// The generation to resume from. While it is set, never boot from disk. With Intent::kRun it is
  /// being woken; it is reset once the guest has answered.
  std::optional<uint64_t> sleeping;
  std::optional<uint64_t> memory_generation;  ///< the one whose memory file the running VMM maps
  std::optional<WallTime> suspended_at;
  int wake_attempts = 0;  ///< of `sleeping`, that failed
  /// The object's generation whose wake its guest has refused: none follows until another is asked
  /// for.
  std::optional<int64_t> wake_refused;
  std::optional<CaptureFigures> capture;
  /// The annotation boot-from-disk stood already when it went to sleep: it is not meant for this
  /// sleep, and its memory is kept.
  bool disk_boot_spent = false;

  /// Generation 0, of `sleeping` and `memory_generation`, is the template's files, which are kept
  /// for as long as one of the two says 0.
  std::optional<Origin> origin;
  std::optional<TemplateCapture> capture_for;  ///< under way; the next plan forgets it

  /// What was read, as JSON, where a newer agent had written fields that we do not know: they are
  /// written back.
  std::string unknown;

  /// Its boot snapshot is of no use: the next plan boots it, and kills the VMM that was to restore.
  void BootInstead() {
    sleeping.reset();
    origin.reset();
    vmm.reset();
  }
  /// No machine of it runs any more.
  void ForgetRun() {
    vmm.reset();
    memory_generation.reset();
    started_at.reset();
    boot_to_ready_ms.reset();
  }
  [[nodiscard]] bool NeedsTemplate() const {
    return origin && (sleeping == uint64_t{0} || memory_generation == uint64_t{0});
  }
  /// It starts from its template, rather than goes on where it slept.
  [[nodiscard]] bool IsCloning() const { return sleeping == uint64_t{0}; }
  [[nodiscard]] kube::ObjectKey key() const { return {ns, name}; }
  bool operator==(const Record&) const = default;
};

/// Sealed (sealed_json.h).
[[nodiscard]] std::string EncodeRecord(const Record& record);
/// kUnsupported for one that only a newer agent may write, kCorrupt for anything else that
/// EncodeRecord did not write.
Result<Record> DecodeRecord(std::string_view text);
/// The slot in a record that may be a newer agent's, as far as it can be told: nobody else may get
/// it.
[[nodiscard]] std::optional<uint32_t> SlotIn(std::string_view text);

}  // namespace dormouse
