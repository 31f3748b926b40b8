// Whose turn it is to wake. A restore and a guest's way to its first answer keep a processor busy:
// more of them at once than there are processors only keep each other from answering. First come,
// first served.
//
// Thread-safe.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "src/common/api/ids.h"
#include "src/common/base/clock.h"
#include "src/common/base/metrics.h"

namespace dormouse {

class WakeTurns {
 public:
  /// `at_once` have theirs; 0: all. After `longest` one counts no more: its guest may never answer.
  /// `clock` must outlive it.
  WakeTurns(std::size_t at_once, std::chrono::nanoseconds longest, const Clock& clock);

  /// Whether it is the turn of `uid`, to be kept until Leave. If not, it has its place in the line:
  /// asking again is harmless.
  bool Take(const api::SandboxUid& uid);
  /// It wakes no more, nor waits. Those whose turn it is then: they are to ask again.
  std::vector<api::SandboxUid> Leave(const api::SandboxUid& uid);

 private:
  [[nodiscard]] std::size_t Free() const;  ///< mutex_ is held

  const std::size_t at_once_;
  const std::chrono::nanoseconds longest_;
  const Clock& clock_;
  const metrics::Gauge in_line_;
  mutable std::mutex mutex_;
  std::map<api::SandboxUid, MonotonicTime> taken_;
  std::deque<api::SandboxUid> line_;
};

}  // namespace dormouse
