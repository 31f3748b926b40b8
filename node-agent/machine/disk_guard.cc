#include "node-agent/machine/disk_guard.h"

#include <chrono>
#include <utility>

#include "node-agent/host/sparse_files.h"

namespace dormouse {

DiskGuard::DiskGuard(std::string path, uint64_t floor_bytes, std::function<void()> act)
    : thread_([this, path = std::move(path), floor_bytes, act = std::move(act)] {
        Run(path, floor_bytes, act);
      }) {}

DiskGuard::~DiskGuard() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_.notify_one();
  thread_.join();
}

void DiskGuard::Run(const std::string& path, uint64_t floor_bytes,
                    const std::function<void()>& act) {
  std::unique_lock lock(mutex_);
  while (!stop_.wait_for(lock, std::chrono::milliseconds(100), [this] { return stopping_; })) {
    const auto space = host::SpaceOf(path);
    if (!space || space->available_bytes >= floor_bytes) continue;
    act();
    return;
  }
}

}  // namespace dormouse
