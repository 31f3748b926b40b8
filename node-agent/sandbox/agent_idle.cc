// What the agent looks at of those sandboxes that have an idle timeout.
#include "node-agent/sandbox/agent.h"

namespace dormouse {

void Agent::TendActivity() {
  std::vector<Record> due;
  for (const api::SandboxUid& uid : idle_.Due()) {
    if (auto record = records_.Find(uid)) due.push_back(std::move(*record));
  }
  if (due.empty()) return;
  for (const api::SandboxUid& uid : NoteActivity(due)) enqueue_(uid.text());
}

std::vector<api::SandboxUid> Agent::NoteActivity(const std::vector<Record>& records) {
  const auto read = machine_.ReadActivity(records);
  std::vector<api::SandboxUid> changed;
  for (const Record& record : records) {
    const auto found = read.find(record.uid);
    if (idle_.Note(record.uid, found == read.end() ? std::nullopt : std::optional(found->second)))
      changed.push_back(record.uid);
  }
  return changed;
}

bool Agent::IsBusyAfterAll(const Record& record) {
  NoteActivity({record});
  const auto shown = idle_.Of(record.uid);
  return !shown || !shown->idle;
}

}  // namespace dormouse
