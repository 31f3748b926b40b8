// The event monitor: pretty-printed JSON objects, each followed by a blank line. Thread-safe.
#pragma once

#include <chrono>
#include <mutex>
#include <string_view>

#include "src/common/base/unique_fd.h"

namespace dormouse::fake_vmm {

class EventMonitor {
 public:
  EventMonitor() = default;
  /// Non-blocking, as the real one's: an event that does not fit into a full pipe is lost.
  void WriteTo(UniqueFd fd);
  void Tell(std::string_view source, std::string_view event);
  /// With properties {"id": id}.
  void TellDevice(std::string_view event, std::string_view id);

 private:
  void Write(std::string_view source, std::string_view event, const std::string& properties);

  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::mutex mutex_;
  UniqueFd fd_;
};

}  // namespace dormouse::fake_vmm
