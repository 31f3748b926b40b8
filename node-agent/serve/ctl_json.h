// The agent's view as JSON, for `ctl -o json`, and as tables, which ctl makes of that JSON. Field
// names are camelCase as in the API; docs/operations.md shows them. Pure; thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "node-agent/sandbox/view.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"

namespace dormouse {

/// A list, sorted by namespace and name.
[[nodiscard]] std::string SummariesToJson(std::vector<SandboxSummary> sandboxes);
[[nodiscard]] std::string LeaksToJson(const std::vector<Leak>& leaks);

/// `json` is what SummariesToJson made; kCorrupt for anything else. `wide` adds columns.
Result<std::string> SandboxTable(std::string_view json, bool wide, WallTime now);
struct LeakTable {
  std::string text;
  size_t count = 0;
};
Result<LeakTable> MakeLeakTable(std::string_view json);
/// Any JSON as indented "key: value" lines, for people.
Result<std::string> Outline(std::string_view json);

/// "512Mi", "1.5Gi": two digits are enough for a table.
[[nodiscard]] std::string HumanBytes(int64_t bytes);
/// "3m", "5h", "2d", as kubectl does.
[[nodiscard]] std::string HumanAge(WallTime since, WallTime now);

}  // namespace dormouse
