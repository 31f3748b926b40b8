// What the agent does about the disks of what runs, and about the node's own.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "node-agent/sandbox/agent.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

// Usage moves all the time; the API hears of it in steps that somebody would act upon.
bool WorthTelling(const std::optional<DiskUsage>& told, const DiskUsage& now) {
  return !told || std::abs(told->used_bytes - now.used_bytes) >= (64 << 20) ||
         std::abs(told->used_percent - now.used_percent) >= 5 ||
         (told->used_percent < 80) != (now.used_percent < 80);
}

}  // namespace

void Agent::TendDisks() {
  auto [state, available] = machine_.CheckNodeDisk();
  std::vector<disk::StoreSize> stores;
  std::vector<std::string> starved;
  for (const Record& record : records_.All()) {
    if (record.intent != Intent::kRun || !record.vmm) continue;
    const auto usage = machine_.KeepDiskAhead(record);
    if (!usage) {
      if (usage.error().code() == ErrorCode::kCorrupt) OnMachineChanged(record.uid.text());
      if (usage.error().code() != ErrorCode::kNoSpace) continue;
      state = Machine::DiskState::kFull;
      starved.push_back(record.uid.text());
    }
    const auto told = Recall(record.uid, [](const Remembered& kept) { return kept.told.disk; });
    const DiskUsage now = usage ? *usage : told.value_or(DiskUsage{});
    stores.push_back({record.uid.text(), static_cast<uint64_t>(now.allocated_bytes)});
    if (usage && WorthTelling(told, now)) {
      Remember(record.uid, [&](Remembered& kept) { kept.told.disk = now; });
      enqueue_(record.uid.text());
    }
  }
  // What can be made again goes before a tenant is refused anything.
  if (state != Machine::DiskState::kFine) TrimBootSnapshots(0);
  disk_state_ = state;
  ShareDisk(stores, starved, available);
}

void Agent::ShareDisk(const std::vector<disk::StoreSize>& stores,
                      const std::vector<std::string>& starved, uint64_t available) {
  std::vector<Standstill> before;
  {
    const std::lock_guard lock(mutex_);
    before = stand_still_;
  }
  const auto in = [](const std::vector<Standstill>& all, const std::string& uid) {
    return std::find_if(all.begin(), all.end(),
                        [&](const Standstill& each) { return each.uid == uid; });
  };
  std::vector<std::string> stopped;
  for (const Standstill& each : before) stopped.push_back(each.uid);
  stopped = disk::WhoStandsStill(stores, available, options_.capacity, stopped);
  for (const std::string& uid : starved) {
    if (std::find(stopped.begin(), stopped.end(), uid) == stopped.end()) stopped.push_back(uid);
  }
  const uint64_t share = disk::FairShare(stores, available);
  std::vector<Standstill> now;
  std::vector<std::string> changed;
  for (const std::string& uid : stopped) {
    if (const auto known = in(before, uid); known != before.end()) {
      now.push_back(*known);
      continue;
    }
    changed.push_back(uid);
    const auto record = records_.Find(*api::SandboxUid::Parse(uid));
    const auto store = std::find_if(stores.begin(), stores.end(),
                                    [&](const auto& each) { return each.sandbox == uid; });
    std::string why = "paused until the node has disk space again: its disk takes " +
                      std::to_string(store->allocated_bytes >> 20) + " MiB of the node's";
    if (store->allocated_bytes > share)
      why += ", where an even share is " + std::to_string(share >> 20) + " MiB";
    now.push_back({uid, record ? record->key().ToString() : uid, why});
    log::Warning("the node is short of disk, and a sandbox stands still",
                 {{"sandbox", now.back().name}, {"why", why}});
  }
  for (const Standstill& each : before) {
    if (in(now, each.uid) != now.end()) continue;
    changed.push_back(each.uid);
    log::Info("a sandbox goes on: there is disk for it", {{"sandbox", each.name}});
  }
  {
    const std::lock_guard lock(mutex_);
    stand_still_ = std::move(now);
  }
  for (const std::string& uid : changed) OnMachineChanged(uid);
}

std::optional<std::string> Agent::StoppedByDisk(const api::SandboxUid& uid) const {
  const std::lock_guard lock(mutex_);
  for (const Standstill& each : stand_still_) {
    if (each.uid == uid.text()) return each.why;
  }
  return std::nullopt;
}

std::vector<std::string> Agent::StandStill() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const Standstill& each : stand_still_) names.push_back(each.name);
  return names;
}

}  // namespace dormouse
