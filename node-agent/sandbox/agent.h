// The agent's reconciler: one sandbox at a time, observe, plan, act, tell.
//
// Thread-safe: Reconcile may run for different UIDs on any number of threads, never for one UID on
// two (the work queue sees to that). There is no recovery beside it: a restarted agent loads its
// records and reconciles them.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "node-agent/disk/capacity.h"
#include "node-agent/machine/machine.h"
#include "node-agent/record/record_store.h"
#include "node-agent/record/template_store.h"
#include "node-agent/sandbox/control_plane.h"
#include "node-agent/sandbox/idle_watch.h"
#include "node-agent/sandbox/remembered.h"
#include "node-agent/sandbox/status.h"
#include "node-agent/sandbox/view.h"
#include "node-agent/sandbox/wake_turns.h"
#include "src/common/base/clock.h"
#include "src/common/kube/controller_loop.h"
#include "src/common/kube/own_writes.h"
#include "src/common/kube/store.h"

namespace dormouse {

/// Who shares a boot snapshot: it holds nothing of a tenant but the choice of an image.
enum class BootSnapshots { kOff, kNamespace, kNode };

struct AgentOptions {
  std::string node_name;
  std::string node_ip;
  std::chrono::milliseconds guest_timeout{
      120'000};  ///< from the VMM's start to the guest's first answer
  /// How long a VMM may be silent before it is ended; what it needs to write or read its RAM
  /// (kSlowestRam) is added.
  std::chrono::milliseconds vmm_timeout{120'000};
  std::chrono::milliseconds inline_wait{
      100};                         ///< how long a worker waits for a guest before it requeues
  std::chrono::seconds resync{60};  ///< how often a running sandbox is looked at in full
  /// How long a sandbox runs on after a capture that failed, a suspend's or a template's, before
  /// the next: doubled each time, up to 5 min.
  std::chrono::seconds capture_retry{15};
  int64_t memory_bytes =
      0;  ///< for all guests together, held against starts and wakes; 0 = not known, so no bound
  size_t wakes_at_once = 0;  ///< that are on their way to the guest's answer; 0 = any number
  std::chrono::seconds orphan_retention{24 * 3600};  ///< files of a sandbox whose object is gone
  BootSnapshots boot_snapshots = BootSnapshots::kNamespace;
  int64_t boot_snapshot_bytes = int64_t{8} << 30;  ///< of all together, on disk; then the least
                                                   ///< recently used goes
  disk::CapacityPolicy capacity;                   ///< who stands still as the node's disk fills up
  PlanLimits limits;
};

class Agent : public AgentView {
 public:
  using Enqueue = std::function<void(const std::string& uid)>;

  /// `template_changed` is told of a template whose capture has ended, or that has won or lost a
  /// clone; it must not block. All must outlive the agent.
  Agent(AgentOptions options, Machine& machine, RecordStore& records, TemplateStore& templates,
        kube::Store<api::Sandbox>& sandboxes, ControlPlane& control_plane, Enqueue enqueue,
        Enqueue template_changed, const Clock& clock = Clock::System());

  /// Once, before anything is reconciled: reads the records, watches what runs, clears what belongs
  /// to nobody. Needs no API server.
  Result<> Adopt();
  /// Every UID there is something to do for, when the cache has synced.
  [[nodiscard]] std::vector<std::string> KnownUids() const;

  Result<kube::ReconcileResult> Reconcile(const std::string& uid);

  /// Captures a template from `source` as soon as that is possible. Asking again changes nothing.
  void WantCapture(const api::SandboxUid& source, const api::SandboxUid& template_uid,
                   const kube::ObjectKey& template_key);
  /// Cancels WantCapture. Returns false if the capture has begun: it then stops before its next
  /// step, and `template_changed` is called when nothing writes to the template's files any more.
  [[nodiscard]] bool DropCapture(const api::SandboxUid& template_uid);
  /// Why the last attempt failed; nothing while it has not.
  [[nodiscard]] std::optional<Error> CaptureFailure(const api::SandboxUid& template_uid) const;

  /// What the memory keeper found of a sleeping generation. Its status shows the damage until none
  /// is found, or until another generation sleeps.
  void NoteMemory(const api::SandboxUid& owner, uint64_t generation,
                  std::optional<std::string> damage);
  /// `generation` 0: of a template.
  [[nodiscard]] std::optional<std::string> DamageOf(const api::SandboxUid& owner,
                                                    uint64_t generation) const;

  /// The machine's word that something happened to a VM.
  void OnMachineChanged(const std::string& uid);
  /// Once a second: fill levels, allocation ahead of use, the node's reserve.
  void TendDisks();
  /// Once a second: whether something happens in those that have an idle timeout.
  void TendActivity();
  [[nodiscard]] Machine::DiskState disk_state() const { return disk_state_; }
  /// Whom the node's full disk has stopped, by name, the first that was stopped first.
  [[nodiscard]] std::vector<std::string> StandStill() const;

  [[nodiscard]] std::vector<SandboxSummary> List() const override;
  [[nodiscard]] Result<std::string> Show(const kube::ObjectKey& key) const override;
  [[nodiscard]] Result<GuestAccess> Guest(const kube::ObjectKey& key) const override;
  [[nodiscard]] Result<std::string> ConsoleTail(const kube::ObjectKey& key,
                                                size_t lines) const override;
  [[nodiscard]] Result<std::vector<Leak>> Sweep(bool remove) override;

 private:
  struct Standstill {
    std::string uid, name;
    std::string why;  ///< for its status
  };
  struct WantedCapture {
    api::SandboxUid source;
    kube::ObjectKey key;
    std::optional<Error> failure;
    int failures = 0;  ///< in a row
    MonotonicTime not_before{};
    bool under_way = false;  ///< its source's worker may be writing its files
    bool dropped = false;    ///< while it was under way
  };

  Result<kube::ReconcileResult> ReconcileWanted(const api::Sandbox& sandbox,
                                                std::optional<Record> record);
  Result<kube::ReconcileResult> ReconcileDeletion(const api::Sandbox& cached);
  Result<kube::ReconcileResult> ReconcileOrphan(const Record& record);
  Result<kube::ReconcileResult> ReconcileUnreadable(const api::Sandbox& sandbox);
  /// Makes nothing, and says so: the controller places it anew. `reason` empty: by the error.
  Result<kube::ReconcileResult> Refuse(const api::Sandbox& sandbox, const Error& error,
                                       std::string_view reason = {});
  /// Says that it is a newer agent's, and leaves everything alone.
  Result<kube::ReconcileResult> ReconcileNewer(const api::Sandbox& sandbox);
  /// `held` is let go when the record is on disk.
  Result<kube::ReconcileResult> Drive(const api::Sandbox& sandbox, Record record, bool is_new,
                                      TemplateStore::Ptr held = nullptr);

  /// Whether what is wanted can be had in another way than by the step that failed: what it takes
  /// is remembered, and the next plan goes that way.
  Result<bool> FindAnotherWay(const Plan& plan, Step failed, const Error& error, Record* record,
                              Desired* desired);
  Result<Observed> Look(const Record& record, bool is_new);
  /// Of its VMM, or since this agent first saw that; nothing where there is none.
  [[nodiscard]] std::optional<std::chrono::nanoseconds> SinceLaunch(const Record& record) const;
  [[nodiscard]] bool CommitIsInDoubt(const Record& record) const;
  void ForgetFailedSuspends(const Record& record);
  /// Puts the egress policy of `spec` in force where another is: in every state in which the
  /// sandbox has a network, whether its guest answers or not. `rules`: Machine::EgressRules.
  Result<> KeepEgress(const api::SandboxSpec& spec, const std::string& rules, const Record& record,
                      const Observed& seen);
  /// Runs the stages; on failure `failed` names the step.
  Result<> Carry(const Plan& plan, const api::SandboxSpec& spec, Record* record,
                 std::optional<Step>* failed);
  Result<> CarryStage(const Stage& stage, const api::SandboxSpec& spec, Record* record,
                      api::CaptureStages* capture, std::optional<Step>* failed);
  /// With its failpoints, its metrics and its line in the log. `capture` collects what the steps of
  /// a capture took, and becomes part of the record's figures with the last one before the commit.
  Result<> CarryStep(Step step, const api::SandboxSpec& spec, Record* record,
                     api::CaptureStages* capture);
  Result<> DoStep(Step step, const api::SandboxSpec& spec, Record* record);
  /// Those of StepOwner::kAgent.
  Result<> DoOwnStep(Step step, const api::SandboxSpec& spec, Record* record);
  Result<> SaveIntent(const Record& record);
  /// What the agent does itself right before and after a step of the machine's.
  void BeforeStep(Step step, const Record& record);
  Result<> AfterStep(Step step, const api::SandboxSpec& spec, const Record& record);
  /// A record for a sandbox that has none: resolved, or a clone. `held` keeps its template until
  /// the record is saved.
  Result<Record> Resolve(const api::Sandbox& sandbox, TemplateStore::Ptr* held);
  [[nodiscard]] std::optional<api::SandboxUid> BootSnapshotOf(const api::SandboxSpec& spec,
                                                              const Record& record) const;
  [[nodiscard]] std::optional<TemplateCapture> CaptureWantedFrom(const api::SandboxSpec& spec,
                                                                 const Record& record);
  /// Before each step of a capture; kNotFound when its template is not wanted any more.
  Result<> GoOnCapturing(const TemplateCapture& capture);
  Result<> CommitTemplate(const api::SandboxSpec& spec, Record* record);
  void TemplateCaptureFailed(const Record& record, const Error& error);
  /// Its boot snapshot did not start: removes the snapshot and lets the sandbox boot.
  Result<> GiveUpBootSnapshot(Record* record);
  /// By their UIDs: records stand or start on their files.
  [[nodiscard]] std::set<api::SandboxUid> NeededTemplates() const;
  /// Removes those that nobody uses, the least recently used first, until the rest takes no more
  /// than `bytes`.
  void TrimBootSnapshots(int64_t bytes);
  void TellTemplate(const Record& record);
  /// A committed capture of a machine, in the metrics.
  static void CountCapture(const char* kind, const CaptureFigures& figures);
  Result<> CommitSuspend(Record* record);
  Result<> CommitWake(Record* record);
  /// The annotation boot-from-disk.
  [[nodiscard]] static bool AsksToBootFromDisk(const api::Sandbox& sandbox);
  Result<> NoticeDiskBootIsOver(const api::Sandbox& sandbox, Record* record);
  /// The last wake of the generation that it sleeps with; nothing where none has failed.
  [[nodiscard]] std::optional<std::string> WhyWakeFailed(const Record& record) const;
  /// False where the error says nothing of the memory: it lacked room, or an answer in time.
  bool NoteFailedWake(const Record& record, Step step, const Error& error);
  Result<> ForgetMemory(const api::SandboxSpec& spec, Record* record);
  void AnnounceDiskBoot(const api::Sandbox& sandbox, const Plan& plan, const Record& record);
  /// Takes memory of the node for a wake, or for the start of one that has no record yet. False
  /// where it has none left. Those that were told so before come first, so that small ones do not
  /// pass a large one for ever.
  [[nodiscard]] bool TakeRoomFor(const Record& record);
  void LeaveRoom(const Record& record);
  /// Whether a wake of it may begin now: they take turns.
  [[nodiscard]] bool TakeTurn(const api::Sandbox& sandbox, const Record& record);
  void LeaveTurn(const api::SandboxUid& uid);
  Result<> Tell(const api::Sandbox& sandbox, StatusInputs inputs);
  /// Our own write of that status, as the API server returned it.
  void NoteWritten(const api::Sandbox& written, std::string status);
  void WarnOfIdleness(const api::Sandbox& sandbox, const StatusInputs& in);
  void Announce(const api::Sandbox& sandbox, const StatusInputs& inputs,
                const api::SandboxStatus& status);
  [[nodiscard]] std::chrono::nanoseconds NextLook(Outcome outcome, const Plan& plan,
                                                  const Record& record) const;
  /// Decides anew who stands still.
  void ShareDisk(const std::vector<disk::StoreSize>& stores,
                 const std::vector<std::string>& starved, uint64_t available_bytes);
  /// Why the node's disk stops it; nothing where it does not.
  [[nodiscard]] std::optional<std::string> StoppedByDisk(const api::SandboxUid& uid) const;
  [[nodiscard]] Desired DesiredOf(const api::Sandbox& sandbox, const Record& record);
  /// Reads what has happened in those; returns whose status has to say something else.
  std::vector<api::SandboxUid> NoteActivity(const std::vector<Record>& records);
  /// Reads once more whether something happens in it.
  [[nodiscard]] bool IsBusyAfterAll(const Record& record);
  /// What its VMM's guest was told so far.
  void RecallVmm(const api::SandboxUid& uid, Desired* desired) const;

  /// Our own last write may be ahead of the watch.
  static const api::Sandbox& Newer(const api::Sandbox& cached,
                                   const std::optional<api::Sandbox>& ours);
  /// What `ask` answers of what is remembered of a sandbox. It is called with the lock held.
  template <typename Ask>
  [[nodiscard]] auto Recall(const api::SandboxUid& uid, const Ask& ask) const {
    const std::lock_guard lock(mutex_);
    const auto found = remembered_.find(uid);
    return ask(found == remembered_.end() ? Remembered{} : found->second);
  }
  /// `change` is called with the lock held.
  template <typename Change>
  void Remember(const api::SandboxUid& uid, const Change& change) {
    const std::lock_guard lock(mutex_);
    change(remembered_[uid]);
  }
  [[nodiscard]] Result<Record> FindByKey(const kube::ObjectKey& key) const;
  Result<std::vector<OwnedObject>> FindLeaks();

  const AgentOptions options_;
  Machine& machine_;
  RecordStore& records_;
  TemplateStore& templates_;
  kube::Store<api::Sandbox>& sandboxes_;
  kube::OwnWrites<api::Sandbox> own_writes_;  ///< by UID
  ControlPlane& control_plane_;
  const Enqueue enqueue_;
  const Enqueue template_changed_;
  const Clock& clock_;
  WakeTurns turns_;
  IdleWatch idle_;
  std::atomic<Machine::DiskState> disk_state_{Machine::DiskState::kFine};
  mutable std::mutex mutex_;
  std::vector<Standstill> stand_still_;  // in the order in which they were stopped
  std::map<api::SandboxUid, Remembered> remembered_;
  std::map<api::SandboxUid, WantedCapture> wanted_;           // by template
  std::map<api::SandboxUid, api::SandboxUid> boot_captures_;  // who makes which boot snapshot
  std::map<api::SandboxUid, MonotonicTime> boot_snapshot_used_;
  std::map<api::SandboxUid, std::pair<uint64_t, std::string>> damaged_;  // by owner
};

}  // namespace dormouse
