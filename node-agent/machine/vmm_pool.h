// VMMs that were launched before their sandboxes are known and answer on their sockets, so that a
// start need neither launch one nor wait for it. Each is a cell: it holds nothing of any sandbox,
// and can reach nothing but what is brought to it when it is adopted (machine_cells.cc).
//
//   made -> idle -> taken -> its namespace settled -> adopted: the sandbox's record speaks for it
//
// A cell is remembered here until it is adopted, and only what this process has launched ever is.
// Refilled by a thread of its own, as host/refill.h says; one that has died is replaced. Idle cells
// go with the pool. Thread-safe.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/host/process.h"
#include "node-agent/host/refill.h"
#include "node-agent/net/furnished.h"
#include "src/common/base/metrics.h"
#include "src/common/base/result.h"

namespace dormouse {

struct ReadyVmm {
  host::Process process;
  std::optional<net::FurnishedNet> net;  ///< that it runs in; nothing once it is a sandbox's
};

/// What a cell is made of, behind one seam.
struct CellWork {
  /// A name that none has; makes nothing.
  std::function<Result<std::string>()> name;
  /// Returns when the VMM answers. On failure parts may be left: `remove` follows.
  std::function<Result<ReadyVmm>(const std::string& id)> make;
  /// Process and all; idempotent.
  std::function<Result<>(const std::string& id)> remove;
};

class VmmPool {
 public:
  /// At most `size` idle ones; 0 makes none.
  VmmPool(size_t size, CellWork work);
  /// Stop.
  ~VmmPool();
  VmmPool(const VmmPool&) = delete;
  VmmPool& operator=(const VmmPool&) = delete;

  /// Refills from now on. Called once, in the node's network namespace.
  void Start();
  /// Removes those that are idle. Nothing is made afterwards.
  void Stop();
  /// Removes what has died, and makes one if there is room. Start's thread calls it; tests do.
  Result<> FillOne();

  /// One that lives, for a sandbox; nothing when there is none.
  std::optional<std::string> Take();
  /// The namespace of one that was taken, once.
  std::optional<net::FurnishedNet> TakeNet(const std::string& id);
  /// One that was taken, lives, and whose namespace has become its sandbox's. The pool knows it no
  /// more, whatever the answer.
  std::optional<host::ProcessIdentity> Adopt(const std::string& id);
  /// The pool knows it no more.
  void Forget(const std::string& id);

  /// Whether it is the pool's business: nobody else is to miss a record that names it.
  [[nodiscard]] bool Holds(const std::string& id) const;
  [[nodiscard]] size_t ready() const;

  /// For as long as it lives, the pool stays out of the way.
  class Work : public host::Refill::Work {
   public:
    explicit Work(VmmPool* pool) : host::Refill::Work(&pool->refill_) {}
  };

 private:
  struct Cell {
    std::string id;
    ReadyVmm vmm;
  };

  static bool HasDied(const Cell& cell);
  [[nodiscard]] bool Wants() const;
  /// Takes one out of the idle ones, to be removed.
  std::optional<std::string> Discard(bool (*which)(const Cell&));
  void Remove(const std::string& id);
  void Count() const;  ///< mutex_ is held

  const size_t size_;
  const CellWork work_;
  const metrics::Gauge ready_gauge_;
  mutable std::mutex mutex_;
  std::vector<Cell> idle_;
  std::map<std::string, ReadyVmm> taken_;
  std::string passing_;  ///< is being made, or removed
  host::Refill refill_;  ///< last: its thread is stopped first
};

}  // namespace dormouse
