#include "node-agent/machine/vmm_pool.h"

#include <algorithm>
#include <utility>

#include "src/common/base/log.h"

namespace dormouse {

VmmPool::VmmPool(size_t size, CellWork work)
    : size_(size),
      work_(std::move(work)),
      ready_gauge_(metrics::Registry::Default().MakeGauge(
          "dormouse_vmm_pool_ready", "VMMs that were launched ahead and wait for a sandbox.")),
      refill_({"VMM", [this] { return Wants(); }, [this] { return FillOne(); }}) {}

VmmPool::~VmmPool() {
  Stop();
}

void VmmPool::Start() {
  if (size_ != 0) refill_.Start();
}

void VmmPool::Stop() {
  refill_.Stop();
  while (const auto id = Discard([](const Cell&) { return true; })) Remove(*id);
}

bool VmmPool::HasDied(const Cell& cell) {
  return cell.vmm.process.HasExited();
}

bool VmmPool::Wants() const {
  const std::lock_guard lock(mutex_);
  return idle_.size() < size_ || std::any_of(idle_.begin(), idle_.end(), HasDied);
}

std::optional<std::string> VmmPool::Discard(bool (*which)(const Cell&)) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(idle_.begin(), idle_.end(), which);
  if (found == idle_.end()) return std::nullopt;
  passing_ = found->id;
  idle_.erase(found);
  Count();
  return passing_;
}

void VmmPool::Remove(const std::string& id) {
  if (auto removed = work_.remove(id); !removed) {
    // The sweep finds it by its name.
    log::Warning("a VMM that was launched ahead is not removed",
                 {{"cell", id}, {"error", removed.error().message()}});
  }
  const std::lock_guard lock(mutex_);
  passing_.clear();
}

Result<> VmmPool::FillOne() {
  while (const auto id = Discard(HasDied)) {
    log::Warning("a VMM that was launched ahead has ended", {{"cell", *id}});
    Remove(*id);
  }
  if (ready() >= size_) return {};
  DORMOUSE_ASSIGN(const std::string id, work_.name());
  {
    const std::lock_guard lock(mutex_);
    passing_ = id;
  }
  auto made = work_.make(id);
  if (!made) {
    Remove(id);
    return Fail(made.error());
  }
  const std::lock_guard lock(mutex_);
  passing_.clear();
  idle_.push_back({id, *std::move(made)});
  Count();
  return {};
}

std::optional<std::string> VmmPool::Take() {
  const std::lock_guard lock(mutex_);
  // Those that have died are left to FillOne.
  const auto found = std::find_if_not(idle_.begin(), idle_.end(), HasDied);
  if (found == idle_.end()) return std::nullopt;
  std::string id = found->id;
  taken_.emplace(id, std::move(found->vmm));
  idle_.erase(found);
  Count();
  return id;
}

std::optional<net::FurnishedNet> VmmPool::TakeNet(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = taken_.find(id);
  if (found == taken_.end()) return std::nullopt;
  return std::exchange(found->second.net, std::nullopt);
}

std::optional<host::ProcessIdentity> VmmPool::Adopt(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto node = taken_.extract(id);
  if (node.empty() || node.mapped().net || node.mapped().process.HasExited()) return std::nullopt;
  return node.mapped().process.identity();
}

void VmmPool::Forget(const std::string& id) {
  const std::lock_guard lock(mutex_);
  taken_.erase(id);
}

bool VmmPool::Holds(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  return passing_ == id || taken_.contains(id) ||
         std::any_of(idle_.begin(), idle_.end(), [&](const Cell& cell) { return cell.id == id; });
}

size_t VmmPool::ready() const {
  const std::lock_guard lock(mutex_);
  return idle_.size();
}

void VmmPool::Count() const {
  ready_gauge_.Set(static_cast<double>(idle_.size()));
}

}  // namespace dormouse
