// What the agent does about the disks of what runs, and about the node's own.
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
  Machine::DiskState state = machine_.CheckNodeDisk();
  for (const Record& record : records_.All()) {
    if (record.intent != Intent::kRun || !record.vmm) continue;
    auto usage = machine_.KeepDiskAhead(record);
    if (!usage) {
      if (usage.error().code() == ErrorCode::kNoSpace) state = Machine::DiskState::kFull;
      if (usage.error().code() == ErrorCode::kCorrupt) OnMachineChanged(record.uid.text());
      continue;
    }
    const auto told = Recall(record.uid, [](const Remembered& kept) { return kept.told.disk; });
    if (WorthTelling(told, *usage)) {
      Remember(record.uid, [&](Remembered& kept) { kept.told.disk = *usage; });
      enqueue_(record.uid.text());
    }
  }
  // What can be made again goes before a tenant is refused anything.
  if (state != Machine::DiskState::kFine) TrimBootSnapshots(0);
  const Machine::DiskState before = disk_state_.exchange(state);
  if ((before == Machine::DiskState::kFull) == (state == Machine::DiskState::kFull)) return;
  log::Warning(state == Machine::DiskState::kFull
                   ? "the node is out of disk: its guests stand still"
                   : "the node has disk again: its guests go on");
  for (const Record& record : records_.All()) OnMachineChanged(record.uid.text());
}

}  // namespace dormouse
