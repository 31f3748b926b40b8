#include "src/common/base/metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "src/common/base/files.h"

namespace dormouse::metrics {
namespace {

struct NumberCell {
  std::atomic<double> value{0};
};

struct HistogramCell {
  explicit HistogramCell(std::vector<double> upper_bounds)
      : bounds(std::move(upper_bounds)), counts(bounds.size() + 1) {}
  const std::vector<double> bounds;
  mutable std::mutex mutex;
  std::vector<uint64_t> counts;  ///< per bucket, not cumulative; the last is +Inf
  double sum = 0;
};

enum class Kind { kCounter, kGauge, kHistogram };

struct Family {
  Kind kind;
  std::string help;
  std::vector<double> bounds;
  std::map<Labels, std::unique_ptr<NumberCell>> numbers;
  std::map<Labels, std::unique_ptr<HistogramCell>> histograms;
};

[[noreturn]] void Die(const std::string& name, const char* why) {
  std::fprintf(stderr, "metric %s: %s\n", name.c_str(), why);
  std::abort();
}

bool IsName(const std::string& name, bool colon) {
  if (name.empty() || (name[0] >= '0' && name[0] <= '9')) return false;
  return std::all_of(name.begin(), name.end(), [colon](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (colon && c == ':');
  });
}

std::string Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return {buffer, end.ptr};
}

void Escape(std::string& out, std::string_view text, bool quotes) {
  for (char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quotes) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
}

std::string LabelText(const Labels& labels, const std::string& le = {}) {
  std::string out;
  for (const auto& [name, value] : labels) {
    out += (out.empty() ? "{" : ",") + name + "=\"";
    Escape(out, value, true);
    out += '"';
  }
  if (!le.empty()) out += (out.empty() ? "{le=\"" : ",le=\"") + le + '"';
  if (!out.empty()) out += '}';
  return out;
}

void WriteHistogram(std::string& out, const std::string& name, const Labels& labels,
                    const HistogramCell& cell) {
  std::lock_guard lock(cell.mutex);
  uint64_t total = 0;
  for (std::size_t i = 0; i < cell.counts.size(); ++i) {
    total += cell.counts[i];
    const std::string le = i < cell.bounds.size() ? Number(cell.bounds[i]) : "+Inf";
    out += name + "_bucket" + LabelText(labels, le) + ' ' + std::to_string(total) + '\n';
  }
  out += name + "_sum" + LabelText(labels) + ' ' + Number(cell.sum) + '\n';
  out += name + "_count" + LabelText(labels) + ' ' + std::to_string(total) + '\n';
}

/// The fields of /proc/self/stat after the command, from "state" (field 3 of proc(5)) on.
std::vector<double> StatFields(const std::string& stat) {
  std::vector<double> fields;
  const std::size_t end = stat.rfind(')');
  if (end == std::string::npos) return fields;
  std::size_t at = end + 2;
  while (at < stat.size()) {
    const std::size_t space = std::min(stat.find(' ', at), stat.size());
    fields.push_back(std::strtod(stat.substr(at, space - at).c_str(), nullptr));
    at = space + 1;
  }
  return fields;
}

double BootTime() {
  const auto stat = ReadFile("/proc/stat", 4 * 1024 * 1024);
  if (!stat) return 0;
  const std::size_t at = stat->find("\nbtime ");
  return at == std::string::npos ? 0 : std::strtod(stat->c_str() + at + 7, nullptr);
}

int OpenFds() {
  DIR* dir = ::opendir("/proc/self/fd");
  if (dir == nullptr) return 0;
  int count = -3;  // ".", "..", and the one that reads
  while (::readdir(dir) != nullptr) ++count;
  ::closedir(dir);
  return count;
}

void WriteProcess(std::string& out) {
  const auto stat = ReadFile("/proc/self/stat", 4096);
  if (!stat) return;
  const auto fields = StatFields(*stat);
  if (fields.size() < 22) return;
  const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  const auto write = [&out](const char* name, const char* kind, double value) {
    out += std::string("# TYPE ") + name + ' ' + kind + '\n' + name + ' ' + Number(value) + '\n';
  };
  write("process_cpu_seconds_total", "counter", (fields[11] + fields[12]) / ticks);
  write("process_resident_memory_bytes", "gauge",
        fields[21] * static_cast<double>(::sysconf(_SC_PAGESIZE)));
  write("process_virtual_memory_bytes", "gauge", fields[20]);
  write("process_threads", "gauge", fields[17]);
  write("process_start_time_seconds", "gauge", BootTime() + fields[19] / ticks);
  write("process_open_fds", "gauge", OpenFds());
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    write("process_max_fds", "gauge", static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace

void Counter::Increment(double by) const {
  if (cell_ != nullptr) static_cast<NumberCell*>(cell_)->value.fetch_add(by);
}
double Counter::Value() const {
  return cell_ == nullptr ? 0 : static_cast<NumberCell*>(cell_)->value.load();
}
void Gauge::Set(double value) const {
  if (cell_ != nullptr) static_cast<NumberCell*>(cell_)->value.store(value);
}
void Gauge::Add(double by) const {
  if (cell_ != nullptr) static_cast<NumberCell*>(cell_)->value.fetch_add(by);
}
double Gauge::Value() const {
  return cell_ == nullptr ? 0 : static_cast<NumberCell*>(cell_)->value.load();
}

void Histogram::Observe(double value) const {
  if (cell_ == nullptr) return;
  auto& cell = *static_cast<HistogramCell*>(cell_);
  const auto bucket = std::lower_bound(cell.bounds.begin(), cell.bounds.end(), value);
  std::lock_guard lock(cell.mutex);
  ++cell.counts[static_cast<std::size_t>(bucket - cell.bounds.begin())];
  cell.sum += value;
}
double Histogram::Sum() const {
  if (cell_ == nullptr) return 0;
  auto& cell = *static_cast<HistogramCell*>(cell_);
  std::lock_guard lock(cell.mutex);
  return cell.sum;
}
double Histogram::Count() const {
  if (cell_ == nullptr) return 0;
  auto& cell = *static_cast<HistogramCell*>(cell_);
  std::lock_guard lock(cell.mutex);
  uint64_t total = 0;
  for (uint64_t count : cell.counts) total += count;
  return static_cast<double>(total);
}

const std::vector<double>& ReconcileBuckets() {
  static const std::vector<double> buckets{
      0.005, 0.01, 0.025, 0.05, 0.1,  0.15, 0.2,  0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6,
      0.7,   0.8,  0.9,   1.0,  1.25, 1.5,  1.75, 2.0,  2.5, 3.0,  3.5, 4.0,  4.5, 5,
      6,     7,    8,     9,    10,   15,   20,   25,   30,  40,   50,  60};
  return buckets;
}

const std::vector<double>& QueueBuckets() {
  static const std::vector<double> buckets{1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3,
                                           1e-2, 1e-1, 1,    10,   100,  1000};
  return buckets;
}

struct Registry::Impl {
  mutable std::mutex mutex;
  std::map<std::string, Family> families;
  std::vector<std::function<void()>> refreshes;

  Family& Make(const std::string& name, const std::string& help, const Labels& labels, Kind kind,
               const std::vector<double>& bounds = {}) {
    if (!IsName(name, true)) Die(name, "not a metric's name");
    for (const auto& [label, value] : labels) {
      if (!IsName(label, false) || label == "le") Die(name, "not a label's name");
    }
    auto& family = families.try_emplace(name, Family{kind, help, bounds, {}, {}}).first->second;
    if (family.kind != kind || family.bounds != bounds) Die(name, "made twice, differently");
    return family;
  }
  NumberCell* MakeNumber(const std::string& name, const std::string& help, const Labels& labels,
                         Kind kind) {
    std::lock_guard lock(mutex);
    auto& cell = Make(name, help, labels, kind).numbers[labels];
    if (!cell) cell = std::make_unique<NumberCell>();
    return cell.get();
  }
};

Registry::Registry() : impl_(std::make_unique<Impl>()) {}
Registry::~Registry() = default;

Registry& Registry::Default() {
  // Never destroyed: threads may still count while the process ends.
  static auto* registry = new Registry();
  return *registry;
}

Counter Registry::MakeCounter(const std::string& name, const std::string& help,
                              const Labels& labels) {
  return Counter(impl_->MakeNumber(name, help, labels, Kind::kCounter));
}

Gauge Registry::MakeGauge(const std::string& name, const std::string& help, const Labels& labels) {
  return Gauge(impl_->MakeNumber(name, help, labels, Kind::kGauge));
}

Histogram Registry::MakeHistogram(const std::string& name, const std::string& help,
                                  const std::vector<double>& upper_bounds, const Labels& labels) {
  if (!std::is_sorted(upper_bounds.begin(), upper_bounds.end())) Die(name, "unsorted buckets");
  std::lock_guard lock(impl_->mutex);
  auto& cell = impl_->Make(name, help, labels, Kind::kHistogram, upper_bounds).histograms[labels];
  if (!cell) cell = std::make_unique<HistogramCell>(upper_bounds);
  return Histogram(cell.get());
}

void Registry::Remove(const std::string& name, const Labels& labels) {
  std::lock_guard lock(impl_->mutex);
  auto family = impl_->families.find(name);
  if (family == impl_->families.end()) return;
  family->second.numbers.erase(labels);
  family->second.histograms.erase(labels);
}

void Registry::BeforeText(std::function<void()> refresh) {
  std::lock_guard lock(impl_->mutex);
  impl_->refreshes.push_back(std::move(refresh));
}

std::string Registry::Text() const {
  std::vector<std::function<void()>> refreshes;
  {
    std::lock_guard lock(impl_->mutex);
    refreshes = impl_->refreshes;
  }
  for (const auto& refresh : refreshes) refresh();

  static constexpr const char* kKindNames[] = {"counter", "gauge", "histogram"};
  std::string out;
  {
    std::lock_guard lock(impl_->mutex);
    for (const auto& [name, family] : impl_->families) {
      if (family.numbers.empty() && family.histograms.empty()) continue;
      out += "# HELP " + name + ' ';
      Escape(out, family.help, false);
      out += "\n# TYPE " + name + ' ' + kKindNames[static_cast<int>(family.kind)] + '\n';
      for (const auto& [labels, cell] : family.numbers) {
        out += name + LabelText(labels) + ' ' + Number(cell->value.load()) + '\n';
      }
      for (const auto& [labels, cell] : family.histograms) WriteHistogram(out, name, labels, *cell);
    }
  }
  WriteProcess(out);
  return out;
}

}  // namespace dormouse::metrics
