// Watches a file system's room while somebody who is not trusted may write to it.
//
// Owned by one thread; `act` runs on a thread of its own, and never after the destructor.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace dormouse {

class DiskGuard {
 public:
  /// Looks ten times a second at the file system that holds `path`, and calls `act` once when it
  /// has less than `floor_bytes` left.
  DiskGuard(std::string path, uint64_t floor_bytes, std::function<void()> act);
  ~DiskGuard();
  DiskGuard(const DiskGuard&) = delete;
  DiskGuard& operator=(const DiskGuard&) = delete;

 private:
  void Run(const std::string& path, uint64_t floor_bytes, const std::function<void()>& act);

  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace dormouse
