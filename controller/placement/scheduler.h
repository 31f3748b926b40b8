// Keeps what placement needs between decisions: the nodes, what is reserved on them, and who waits.
//
// Older sandboxes come first: room that was freed is offered to those that wait, by age, before a
// newer one is decided upon; one that does not fit does not hold up those behind it. What is
// decided is promised (Ledger), so that decisions may be written by many workers at once.
//
// Thread-safe; nothing here blocks or does I/O.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "controller/placement/demand.h"
#include "controller/placement/ledger.h"
#include "controller/placement/placement.h"
#include "src/common/base/clock.h"

namespace dormouse::controller {

class Scheduler {
 public:
  using SandboxPtr = std::shared_ptr<const api::Sandbox>;

  struct Options {
    std::chrono::nanoseconds refusal_memory =
        std::chrono::seconds(60);  ///< a node that refused is avoided so long
  };

  /// The cache's newest, or null. Asked under the scheduler's lock, so that what is learnt last is
  /// the newest.
  using SandboxLookup = std::function<SandboxPtr(const kube::ObjectKey&)>;

  Scheduler(SandboxLookup sandboxes, TemplateLookup templates, const Clock& clock, Options options);

  // What changed in the world. True: those that wait may fare differently now, call Retry.

  bool SetNode(const api::SandboxNode& node, bool lease_fresh);
  bool RemoveNode(const std::string& name);
  /// A sandbox changed in the cache, or the template that says what it holds.
  bool Observe(const kube::ObjectKey& key);
  /// A sandbox is gone from the cache.
  bool Forget(const std::string& uid);
  /// A template changed. Always worth a Retry.
  void TouchTemplates();

  /// Where `sandbox` goes: promised to it from now on; or why it waits. The same answer again while
  /// nothing that matters has changed. Nothing when the cache shows by now that it is placed, or
  /// goes.
  [[nodiscard]] std::optional<Placement> Decide(const api::Sandbox& sandbox);
  /// It is not to be placed any more (being deleted).
  void Withdraw(const std::string& uid);
  /// `node` refused the sandbox, or was declared gone: others are tried for a while.
  void Refused(const std::string& uid, const std::string& node);
  /// When the oldest refusal of `uid` is forgotten; nothing without one.
  [[nodiscard]] std::optional<std::chrono::nanoseconds> RefusalEnds(const std::string& uid) const;

  /// Decides for all that wait, oldest first; the keys of those whose last answer is no longer
  /// right.
  [[nodiscard]] std::vector<kube::ObjectKey> Retry();

  [[nodiscard]] std::size_t Waiting() const;
  [[nodiscard]] Amount Reserved(const std::string& node) const;

 private:
  using Age = std::pair<WallTime, std::string>;  ///< creation and UID: the order of those that wait
  struct Pending {
    kube::ObjectKey key;
    Placement answer;    ///< what Decide said last
    Placement latest;    ///< what it would say now
    uint64_t epoch = 0;  ///< of `latest`
  };

  void RefreshLocked(const std::string& uid, Pending* pending);
  [[nodiscard]] SandboxPtr UnplacedLocked(const kube::ObjectKey& key, const std::string& uid) const;
  [[nodiscard]] Placement EvaluateLocked(const api::Sandbox& sandbox);
  [[nodiscard]] bool PromiseStandsLocked(const Demand& demand, const Holding& promise);
  void BumpLocked();

  const SandboxLookup sandboxes_;
  const TemplateLookup templates_;
  const Clock& clock_;
  const Options options_;
  mutable std::mutex mutex_;
  std::vector<NodeView> nodes_;  ///< by name
  Ledger ledger_;
  std::map<Age, Pending> waiting_;
  std::unordered_map<std::string, std::map<std::string, MonotonicTime>>
      refusals_;                                         ///< uid -> node -> until
  std::unordered_map<std::string, Placement> hopeless_;  ///< answers of this epoch by Demand::Shape
  uint64_t epoch_ = 1;  ///< goes up whenever somebody who waits may fit
};

}  // namespace dormouse::controller
