// What the agent looks at of those sandboxes that have an idle timeout.
#include "node-agent/sandbox/agent.h"

namespace dormouse {

void Agent::TendActivity() {
  std::vector<Record> due;
  for (const api::SandboxUid& uid : idle_.Due()) {
    if (auto record = records_.Find(uid)) due.push_back(std::move(*record));
  }
  if (due.empty()) return;
  const auto read = machine_.ReadActivity(due);
  for (const Record& record : due) {
    const auto found = read.find(record.uid);
    if (idle_.Note(record.uid, found == read.end() ? std::nullopt : std::optional(found->second)))
      enqueue_(record.uid.text());
  }
}

bool Agent::IsBusyAfterAll(const Record& record) {
  const auto read = machine_.ReadActivity({record});
  const auto found = read.find(record.uid);
  (void)idle_.Note(record.uid, found == read.end() ? std::nullopt : std::optional(found->second));
  const auto shown = idle_.Of(record.uid);
  return !shown || !shown->idle;
}

}  // namespace dormouse
