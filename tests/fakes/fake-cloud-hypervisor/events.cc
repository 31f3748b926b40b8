#include "tests/fakes/fake-cloud-hypervisor/events.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>

namespace dormouse::fake_vmm {

void EventMonitor::WriteTo(UniqueFd fd) {
  const int flags = ::fcntl(fd.get(), F_GETFL);
  (void)::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK);
  fd_ = std::move(fd);
}

void EventMonitor::Tell(std::string_view source, std::string_view event) {
  Write(source, event, "null");
}

void EventMonitor::TellDevice(std::string_view event, std::string_view id) {
  Write("virtio-device", event, "{\n    \"id\": \"" + std::string(id) + "\"\n  }");
}

void EventMonitor::Write(std::string_view source, std::string_view event,
                         const std::string& properties) {
  const std::lock_guard lock(mutex_);
  if (!fd_) return;
  const auto since = std::chrono::steady_clock::now() - started_;
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  const auto nanos = std::chrono::nanoseconds(since - seconds).count();
  const std::string text =
      "{\n  \"timestamp\": {\n    \"secs\": " + std::to_string(seconds.count()) +
      ",\n    \"nanos\": " + std::to_string(nanos) + "\n  },\n  \"source\": \"" +
      std::string(source) + "\",\n  \"event\": \"" + std::string(event) +
      "\",\n  \"properties\": " + properties + "\n}\n\n";
  (void)!::write(fd_.get(), text.data(), text.size());
}

}  // namespace dormouse::fake_vmm
