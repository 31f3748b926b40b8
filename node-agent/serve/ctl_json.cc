#include "node-agent/serve/ctl_json.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <tuple>

#include "node-agent/serve/console_file.h"
#include "src/common/base/json_text.h"
#include "src/common/base/time.h"

namespace dormouse {
namespace {

using nlohmann::ordered_json;

constexpr size_t kColumnGap = 3;

std::string Dump(const ordered_json& value) {
  return JsonText(value, 2) + "\n";
}

Result<ordered_json> Parse(std::string_view text) {
  ordered_json value = ordered_json::parse(text, nullptr, false);
  if (value.is_discarded()) return Fail(ErrorCode::kCorrupt, "the agent's answer is no JSON");
  return value;
}

std::string Text(const ordered_json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? Printable(found->get<std::string>())
                                                     : std::string();
}

int64_t Number(const ordered_json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

std::string OrDash(std::string text) {
  return text.empty() ? "-" : text;
}

using Row = std::vector<std::string>;

std::string Layout(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text.append(widths[i] - row[i].size() + kColumnGap, ' ');
    }
    text += '\n';
  }
  return text;
}

void AppendOutline(const ordered_json& value, size_t depth, std::string* text);

void AppendEntry(const std::string& label, const ordered_json& value, size_t depth,
                 std::string* text) {
  const std::string indent(2 * depth, ' ');
  const bool nested = value.is_structured() && !value.empty();
  if (nested) {
    *text += indent + label + "\n";
    AppendOutline(value, depth + 1, text);
    return;
  }
  std::string shown = value.is_string() ? Printable(value.get<std::string>()) : JsonText(value);
  while (!shown.empty() && shown.back() == '\n') shown.pop_back();
  if (shown.find('\n') == std::string::npos) {
    *text += indent + label + " " + shown + "\n";
    return;
  }
  *text += indent + label + "\n";
  for (size_t start = 0; start <= shown.size();) {  // text of several lines, each below the label
    const size_t end = std::min(shown.find('\n', start), shown.size());
    *text += indent + "  | " + shown.substr(start, end - start) + "\n";
    start = end + 1;
  }
}

void AppendOutline(const ordered_json& value, size_t depth, std::string* text) {
  if (value.is_object()) {
    for (const auto& [key, entry] : value.items())
      AppendEntry(Printable(key) + ":", entry, depth, text);
  } else if (value.is_array()) {
    for (const ordered_json& entry : value) AppendEntry("-", entry, depth, text);
  } else {
    AppendEntry("", value, depth, text);
  }
}

}  // namespace

std::string SummariesToJson(std::vector<SandboxSummary> sandboxes) {
  std::sort(sandboxes.begin(), sandboxes.end(),
            [](const SandboxSummary& a, const SandboxSummary& b) {
              return std::tie(a.ns, a.name, a.uid) < std::tie(b.ns, b.name, b.uid);
            });
  ordered_json list = ordered_json::array();
  for (const SandboxSummary& sandbox : sandboxes) {
    ordered_json entry = {{"namespace", sandbox.ns},
                          {"name", sandbox.name},
                          {"uid", sandbox.uid},
                          {"id", sandbox.short_id},
                          {"phase", sandbox.phase},
                          {"reason", sandbox.ready_reason},
                          {"running", sandbox.running},
                          {"image", sandbox.image},
                          {"pid", sandbox.pid},
                          {"incarnation", sandbox.incarnation},
                          {"restartCount", sandbox.restart_count},
                          {"cpu", sandbox.vcpus},
                          {"memoryBytes", sandbox.memory_bytes},
                          {"hostAddress", sandbox.host_address},
                          {"diskAllocatedBytes", sandbox.disk_allocated_bytes},
                          {"diskUsedBytes", sandbox.disk_used_bytes}};
    if (sandbox.started_at) entry["startedAt"] = FormatTime(*sandbox.started_at);
    list.push_back(std::move(entry));
  }
  return Dump(list);
}

std::string LeaksToJson(const std::vector<Leak>& leaks) {
  ordered_json list = ordered_json::array();
  for (const Leak& leak : leaks)
    list.push_back({{"kind", leak.kind}, {"name", leak.name}, {"detail", leak.detail}});
  return Dump(list);
}

Result<std::string> SandboxTable(std::string_view text, bool wide, WallTime now) {
  DORMOUSE_ASSIGN(const ordered_json list, Parse(text));
  std::vector<Row> rows = {
      {"NAMESPACE", "NAME", "PHASE", "REASON", "CPU", "MEMORY", "DISK", "PID", "RESTARTS", "UP"}};
  if (wide) rows[0].insert(rows[0].end(), {"IP", "IMAGE", "ID", "UID"});
  for (const ordered_json& entry : list) {
    const auto started = ParseTime(Text(entry, "startedAt"));
    const bool running = entry.value("running", false);
    const int64_t pid = Number(entry, "pid");
    Row row = {Text(entry, "namespace"),
               Text(entry, "name"),
               OrDash(Text(entry, "phase")),
               OrDash(Text(entry, "reason")),
               std::to_string(Number(entry, "cpu")),
               HumanBytes(Number(entry, "memoryBytes")),
               HumanBytes(Number(entry, "diskAllocatedBytes")),
               pid > 0 ? std::to_string(pid) : "-",
               std::to_string(Number(entry, "restartCount")),
               running && started ? HumanAge(*started, now) : "-"};
    if (wide) {
      row.insert(row.end(), {OrDash(Text(entry, "hostAddress")), OrDash(Text(entry, "image")),
                             Text(entry, "id"), Text(entry, "uid")});
    }
    rows.push_back(std::move(row));
  }
  return rows.size() == 1 ? "no sandboxes on this node\n" : Layout(rows);
}

Result<LeakTable> MakeLeakTable(std::string_view text) {
  DORMOUSE_ASSIGN(const ordered_json list, Parse(text));
  if (list.empty()) return LeakTable{"nothing here belongs to no sandbox\n", 0};
  std::vector<Row> rows = {{"KIND", "NAME", "DETAIL"}};
  for (const ordered_json& entry : list) {
    rows.push_back({Text(entry, "kind"), Text(entry, "name"), OrDash(Text(entry, "detail"))});
  }
  return LeakTable{Layout(rows), list.size()};
}

Result<std::string> Outline(std::string_view text) {
  DORMOUSE_ASSIGN(const ordered_json value, Parse(text));
  std::string outline;
  AppendOutline(value, 0, &outline);
  return outline;
}

std::string HumanBytes(int64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"", "Ki", "Mi", "Gi", "Ti"};
  auto amount = static_cast<double>(bytes);
  size_t unit = 0;
  for (; amount >= 1024 && unit + 1 < kUnits.size(); ++unit) amount /= 1024;
  char text[32];
  const bool whole = amount >= 10 || amount == static_cast<double>(static_cast<int64_t>(amount));
  (void)std::snprintf(text, sizeof(text), whole ? "%.0f%s" : "%.1f%s", amount, kUnits[unit]);
  return text;
}

std::string HumanAge(WallTime since, WallTime now) {
  const int64_t seconds =
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::seconds>(now - since).count());
  if (seconds < 120) return std::to_string(seconds) + "s";
  if (seconds < 2 * 3600) return std::to_string(seconds / 60) + "m";
  if (seconds < 48 * 3600) return std::to_string(seconds / 3600) + "h";
  return std::to_string(seconds / 86400) + "d";
}

}  // namespace dormouse
