// What a process has written itself and its cache does not show yet (KEP-5647): a reconcile that
// acted on the older state would do the same again.
//
// A write counts only as long as the lists of the cache do not go back. An etcd that was restored
// from a snapshot has forgotten it, and will never show it.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>

#include "src/common/kube/store.h"

namespace dormouse::kube {

template <typename T>
class OwnWrites {
 public:
  /// `cache` must outlive it.
  explicit OwnWrites(const Store<T>& cache) : cache_(cache) {}

  /// `version`: what the server answered. Keys are the caller's: names, or UIDs.
  void Wrote(const std::string& key, const ResourceVersion& version) {
    const std::lock_guard lock(mutex_);
    writes_[key] = {version, cache_.Rewinds()};
  }
  /// Whether our last write to `key` is newer than the cache. Ask before the object is taken from
  /// the cache: when this is false, that object is newer than the write, or the write is lost.
  [[nodiscard]] bool AreAhead(const std::string& key) {
    const std::lock_guard lock(mutex_);
    const auto found = writes_.find(key);
    if (found == writes_.end()) return false;
    const auto& [version, rewinds] = found->second;
    if (cache_.Rewinds() == rewinds && !cache_.HasSeen(version)) return true;
    writes_.erase(found);
    return false;
  }
  void Forget(const std::string& key) {
    const std::lock_guard lock(mutex_);
    writes_.erase(key);
  }

 private:
  struct Write {
    ResourceVersion version;
    uint64_t rewinds;  ///< of the cache, when it was written
  };
  const Store<T>& cache_;
  std::mutex mutex_;
  std::unordered_map<std::string, Write> writes_;
};

}  // namespace dormouse::kube
