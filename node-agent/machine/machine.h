// What a sandbox is made of on this node, behind one seam: the steps of a plan, and what there is.
//
// The agent decides; the machine acts, and knows nothing of the API server. One implementation acts
// on the kernel (machine_linux.h); tests have one that is a table of booleans and can fail on
// demand. Thread-safe for different sandboxes; the steps of one stage call it side by side for one
// sandbox.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/host/vmm_socket.h"
#include "node-agent/machine/activity.h"
#include "node-agent/machine/observed.h"
#include "node-agent/machine/owned.h"
#include "node-agent/machine/step.h"
#include "node-agent/memory/verify.h"
#include "node-agent/record/record.h"
#include "src/common/api/sandbox.h"
#include "src/common/base/result.h"

namespace dormouse {

struct DiskUsage {
  int64_t used_bytes = 0;       ///< chunks that differ from the base, with their metadata
  int64_t allocated_bytes = 0;  ///< on the node's file system (st_blocks * 512)
  int used_percent = 0;         ///< of the virtual disk
};

/// A VMM that answers, as its status is reported.
struct VmmIdentity {
  std::string name;     ///< "cloud-hypervisor"
  std::string version;  ///< "53.0"
};

/// Why kCopyGeneration makes no template of a sandbox whose guest was not frozen when it went to
/// sleep (kUnsupported): its programs ran on and know who they are, so no clone could become
/// another.
inline constexpr std::string_view kCapturedAsItRan =
    "the guest is not known to have stood still when it was suspended, and no clone of it could "
    "become another sandbox; wake it, and it is captured then";

class Machine {
 public:
  virtual ~Machine() = default;

  /// Turns a spec that starts from an image into what a record names: image and its digest, disk
  /// size, VMM, kernel, initramfs; takes no slot yet. Makes nothing. kNotFound: no such image here
  /// (kUnavailable while it is being read); kCorrupt: the image is damaged; kInvalid: the spec
  /// cannot be met anywhere; kNoSpace: not here; kUnsupported: this node's VMM cannot be used.
  virtual Result<Record> Resolve(const api::Sandbox& sandbox) = 0;

  /// All that stands for the record's UID, whether or not the record is complete. The VMM and the
  /// guest are asked with short time limits.
  virtual Result<Observed> Observe(const Record& record) = 0;
  /// Only the guest, of a VM that is known to run: cheap enough to be asked every few milliseconds.
  virtual void ObserveGuest(const Record& record, Observed* seen) = 0;

  /// Carries out one step of StepOwner::kMachine; idempotent. kLaunchVmm puts the process into
  /// `record->vmm`, kSyncCapture the figures into `record->capture`, or into `capture_for`'s: the
  /// caller saves them.
  virtual Result<> Do(Step step, const api::SandboxSpec& spec, Record* record) = 0;

  /// What Observed::egress is where the spec's egress policy is in force.
  [[nodiscard]] virtual std::string EgressRules(const api::SandboxSpec& spec) const = 0;
  /// Puts that policy in force where the sandbox has a network, whatever else there is of it.
  virtual Result<> UpdateNetwork(const api::SandboxSpec& spec, const Record& record) = 0;
  /// Fill level, and space allocated ahead of it. kNoSpace: the guest must stand still.
  virtual Result<DiskUsage> KeepDiskAhead(const Record& record) = 0;

  /// What the kernel has counted of those; one that cannot be read is left out.
  virtual std::map<api::SandboxUid, Activity> ReadActivity(const std::vector<Record>& records) = 0;

  /// From now on `changed` of the constructor is called with the UID when the VMM dies or speaks.
  virtual Result<> Watch(const Record& record) = 0;
  virtual void Unwatch(const Record& record) = 0;
  /// Waits for the end of a running workload: `changed` is called once, when it has ended or its
  /// guest stops answering. Calling it again meanwhile changes nothing. On an error nobody waits,
  /// and the guest must be asked now and then.
  virtual Result<> AwaitWorkload(const Record& record) = 0;
  /// When it returns, AwaitWorkload has no connection open to the guest. Unwatch does this, too.
  virtual void StopAwaiting(const Record& record) = 0;

  [[nodiscard]] virtual std::string HostAddress(const Record& record) const = 0;
  [[nodiscard]] virtual host::VmmSocket VsockSocket(const Record& record) const = 0;
  [[nodiscard]] virtual VmmIdentity Vmm() const = 0;
  /// What of this node, beside a record, decides what a boot leads to: a boot snapshot is used only
  /// where it is the same.
  [[nodiscard]] virtual std::string BootTraits() const = 0;
  /// What it takes to run the files that were captured for `record.capture_for`, as they say
  /// themselves: those of one that slept may be of another time than this.
  virtual Result<memory::Requirements> NeedsOfCapture(const Record& record) = 0;
  /// What generations are judged by. Asking looks for files by name, and reads none.
  [[nodiscard]] virtual memory::NodeOffer Offer() = 0;
  [[nodiscard]] virtual std::string ConsoleTail(const Record& record, size_t lines) const = 0;
  /// The slot of the VM that runs for a UID whose record cannot be read; nothing when none runs.
  [[nodiscard]] virtual std::optional<uint32_t> SlotInUse(const api::SandboxUid& uid) const = 0;
  /// Resumes all disks whose I/O is held back: an agent that died in a capture leaves them so. Call
  /// it before any capture begins.
  virtual Result<> ResumeDisks() = 0;
  /// Everything in the kernel and below the run directory that has a name of ours.
  virtual Result<std::vector<OwnedObject>> ListOwned() = 0;
  /// Takes away all that stands for `short_id`, by names alone.
  virtual Result<> RemoveOwned(const std::string& short_id) = 0;
  /// Devices and files of base images that nothing stands on any more; `used`: digests that records
  /// name.
  virtual Result<> CollectBases(const std::vector<std::string>& used) = 0;
  /// Slots are below this.
  [[nodiscard]] virtual uint32_t SlotLimit() const = 0;
  /// The node must pause guests (invariant 12), or may not start more.
  enum class DiskState { kFine, kRefuseNew, kFull };
  struct NodeDisk {
    DiskState state = DiskState::kFine;
    uint64_t available_bytes = 0;  ///< what is left of the state directory's file system
  };
  [[nodiscard]] virtual NodeDisk CheckNodeDisk() = 0;
};

}  // namespace dormouse
