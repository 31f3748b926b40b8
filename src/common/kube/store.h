// The objects a process holds of one kind: typed, immutable, shared; by key, by UID, and by named
// indexes.
//
// Thread-safe. Readers get shared_ptr<const T>, which stays as it was while the store moves on. One
// reflector writes. Subscribers run one at a time on a thread of the transport, outside the lock,
// after the store has changed: they add keys to a queue and return, and never wait for the network.
// Subscribe and AddIndex before the reflector starts.
//
// A cache is a hint: before anything is destroyed, read the object live (docs/structure.md,
// invariant 8).
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "src/common/kube/types.h"

namespace dormouse::kube {

template <typename T>
class Store {
 public:
  using Ptr = std::shared_ptr<const T>;
  using IndexFunction = std::function<std::vector<std::string>(const T&)>;

  struct Change {
    ObjectRef ref;         ///< of `after`, or of what went
    Ptr before;            ///< null for a new object
    Ptr after;             ///< null for one that left the selection, or the cluster
    bool initial = false;  ///< part of a first listing: not urgent
  };
  using Subscriber = std::function<void(const Change&)>;

  /// Objects can then be found by each of the values `function` gives for them.
  void AddIndex(std::string name, IndexFunction function) {
    std::lock_guard lock(mutex_);
    indexes_[std::move(name)].function = std::move(function);
  }
  void Subscribe(Subscriber subscriber) { subscribers_.push_back(std::move(subscriber)); }

  /// Null when it is not there.
  [[nodiscard]] Ptr Get(const ObjectKey& key) const {
    std::lock_guard lock(mutex_);
    auto it = entries_.find(key);
    return it == entries_.end() ? nullptr : it->second.object;
  }
  [[nodiscard]] Ptr GetByUid(std::string_view uid) const {
    std::lock_guard lock(mutex_);
    auto it = by_uid_.find(uid);
    return it == by_uid_.end() ? nullptr : it->second->object;
  }
  /// UID and resourceVersion of what Get would return.
  [[nodiscard]] std::optional<ObjectRef> RefOf(const ObjectKey& key) const {
    std::lock_guard lock(mutex_);
    auto it = entries_.find(key);
    if (it == entries_.end()) return std::nullopt;
    return ObjectRef{key, it->second.uid, it->second.resource_version};
  }
  /// In no order.
  [[nodiscard]] std::vector<Ptr> List() const {
    std::lock_guard lock(mutex_);
    std::vector<Ptr> all;
    all.reserve(entries_.size());
    for (const auto& [key, entry] : entries_) all.push_back(entry.object);
    return all;
  }
  /// Those for which the index `name` gave `value`; in no order.
  [[nodiscard]] std::vector<Ptr> ByIndex(const std::string& name, const std::string& value) const {
    std::lock_guard lock(mutex_);
    std::vector<Ptr> found;
    auto index = indexes_.find(name);
    if (index == indexes_.end()) return found;
    auto it = index->second.entries.find(value);
    if (it == index->second.entries.end()) return found;
    found.reserve(it->second.size());
    for (const Entry* entry : it->second) found.push_back(entry->object);
    return found;
  }
  [[nodiscard]] std::size_t Size() const {
    std::lock_guard lock(mutex_);
    return entries_.size();
  }

  /// True once a first listing was taken in whole.
  [[nodiscard]] bool Synced() const {
    std::lock_guard lock(mutex_);
    return synced_;
  }
  [[nodiscard]] bool WaitForSync(std::chrono::milliseconds timeout) const {
    std::unique_lock lock(mutex_);
    return synced_changed_.wait_for(lock, timeout, [this] { return synced_; });
  }
  /// How far the cache has come, by events and by bookmarks.
  [[nodiscard]] ResourceVersion CurrentVersion() const {
    std::lock_guard lock(mutex_);
    return version_;
  }
  /// True when our own write that returned `version` is in the cache: a reconcile that must see it
  /// waits until then (KEP-5647).
  [[nodiscard]] bool HasSeen(const ResourceVersion& version) const {
    std::lock_guard lock(mutex_);
    return version_.IsAtLeast(version);
  }
  /// How often a list was older than what the cache had: etcd was restored, and writes were lost.
  [[nodiscard]] uint64_t Rewinds() const {
    std::lock_guard lock(mutex_);
    return rewinds_;
  }

  // What the reflector calls, from one thread at a time.

  void BeginReplace() {
    std::lock_guard lock(mutex_);
    ++generation_;
  }
  /// `listed`: as an item of a listing. One that has not changed since then is no news to
  /// subscribers.
  void Upsert(const ObjectRef& ref, Ptr object, bool listed) {
    Change change{ref, nullptr, object, false};
    std::optional<Change> replaced;
    bool changed = true;
    {
      std::lock_guard lock(mutex_);
      change.initial = listed && !synced_;
      auto it = entries_.find(ref.key);
      if (it != entries_.end() && it->second.uid != ref.uid) {
        // The old one was deleted and its name taken anew while we did not look: two changes.
        replaced = Change{{ref.key, it->second.uid, it->second.resource_version},
                          it->second.object,
                          nullptr,
                          change.initial};
        EraseLocked(it);
        it = entries_.end();
      }
      if (it == entries_.end()) {
        it = entries_.try_emplace(ref.key).first;
        it->second.uid = ref.uid;
        by_uid_[it->second.uid] = &it->second;
      } else {
        change.before = it->second.object;
        changed = !listed || it->second.resource_version != ref.resource_version;
        UnindexLocked(it->second);
      }
      Entry& entry = it->second;
      entry.object = std::move(object);
      entry.resource_version = ref.resource_version;
      entry.generation = generation_;
      IndexLocked(entry);
      if (!listed) version_ = ref.resource_version;
    }
    if (replaced) Notify(*replaced);
    if (changed) Notify(change);
  }
  /// Keeps what is stored under `key` through a replace: it is there, but could not be decoded.
  void Keep(const ObjectKey& key) {
    std::lock_guard lock(mutex_);
    auto it = entries_.find(key);
    if (it != entries_.end()) it->second.generation = generation_;
  }
  /// With the object's last state where the server sent it.
  void Remove(const ObjectRef& ref) {
    Change change{ref, nullptr, nullptr, false};
    {
      std::lock_guard lock(mutex_);
      if (!ref.resource_version.empty()) version_ = ref.resource_version;
      auto it = entries_.find(ref.key);
      if (it == entries_.end() || it->second.uid != ref.uid) return;
      change.before = it->second.object;
      EraseLocked(it);
    }
    Notify(change);
  }
  /// Whatever was not upserted or kept since BeginReplace is gone.
  void EndReplace(const ResourceVersion& version) {
    std::vector<Change> gone;
    {
      std::lock_guard lock(mutex_);
      for (auto it = entries_.begin(); it != entries_.end();) {
        if (it->second.generation == generation_) {
          ++it;
          continue;
        }
        gone.push_back({{it->first, it->second.uid, it->second.resource_version},
                        it->second.object,
                        nullptr,
                        false});
        it = EraseLocked(it);
      }
      if (!version_.empty() && !version.IsAtLeast(version_)) ++rewinds_;
      version_ = version;
      synced_ = true;
    }
    synced_changed_.notify_all();
    for (const Change& change : gone) Notify(change);
  }
  void SetVersion(const ResourceVersion& version) {
    std::lock_guard lock(mutex_);
    version_ = version;
  }

 private:
  struct Entry {
    Ptr object;
    std::string uid;
    ResourceVersion resource_version;
    uint64_t generation = 0;
  };
  using Entries = std::unordered_map<ObjectKey, Entry>;
  struct Index {
    IndexFunction function;
    std::unordered_map<std::string, std::unordered_set<const Entry*>> entries;
  };

  void IndexLocked(const Entry& entry) {
    for (auto& [name, index] : indexes_) {
      for (auto& value : index.function(*entry.object)) index.entries[value].insert(&entry);
    }
  }
  void UnindexLocked(const Entry& entry) {
    for (auto& [name, index] : indexes_) {
      for (const auto& value : index.function(*entry.object)) {
        auto it = index.entries.find(value);
        if (it == index.entries.end()) continue;
        it->second.erase(&entry);
        if (it->second.empty()) index.entries.erase(it);
      }
    }
  }
  typename Entries::iterator EraseLocked(typename Entries::iterator it) {
    UnindexLocked(it->second);
    auto uid = by_uid_.find(it->second.uid);
    if (uid != by_uid_.end() && uid->second == &it->second) by_uid_.erase(uid);
    return entries_.erase(it);
  }
  void Notify(const Change& change) {
    for (const auto& subscriber : subscribers_) subscriber(change);
  }

  mutable std::mutex mutex_;
  mutable std::condition_variable synced_changed_;
  Entries entries_;
  std::unordered_map<std::string_view, Entry*>
      by_uid_;  ///< views into Entry::uid: nodes do not move
  std::unordered_map<std::string, Index> indexes_;
  std::vector<Subscriber> subscribers_;
  ResourceVersion version_;
  uint64_t generation_ = 0;
  uint64_t rewinds_ = 0;
  bool synced_ = false;
};

}  // namespace dormouse::kube
