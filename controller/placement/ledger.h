// Who holds how much of which node: what the cache shows, and what was promised and may not show
// yet.
//
// A promise stands until the cache shows the sandbox on a node, or it is withdrawn; so a second
// placement never takes what a first one was given, however far the watch lags behind. Amounts per
// node are kept as sums: every call is O(log n).
//
// Not thread-safe: the Scheduler's lock guards it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "controller/placement/placement.h"

namespace dormouse::controller {

struct Holding {
  std::string node;
  Amount amount;
  bool operator==(const Holding&) const = default;
};

class Ledger {
 public:
  /// The cache shows `uid` on a node: that settles any promise. True when some node has more room
  /// than before.
  bool Observe(const std::string& uid, const Holding& holding);
  /// The cache shows `uid` without a node. A promise stands. True when a node has more room.
  bool ObserveUnplaced(const std::string& uid);
  /// `uid` is gone. True when a node has more room.
  bool Forget(const std::string& uid);

  void Promise(const std::string& uid, const Holding& holding);
  [[nodiscard]] std::optional<Holding> Promised(const std::string& uid) const;
  /// True when there was a promise.
  bool Withdraw(const std::string& uid);

  [[nodiscard]] Amount Reserved(const std::string& node) const;

 private:
  using Holdings = std::unordered_map<std::string, Holding>;
  bool Erase(Holdings* from, const std::string& uid);
  void Insert(Holdings* into, const std::string& uid, const Holding& holding);

  Holdings observed_;
  Holdings promised_;
  std::map<std::string, Amount> reserved_;
};

}  // namespace dormouse::controller
