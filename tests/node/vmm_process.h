// A VMM process of a test: started from $CLOUD_HYPERVISOR in a directory of its own, killed at the
// end.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/guest/guest_client.h"
#include "node-agent/host/process.h"
#include "node-agent/vmm/api_client.h"
#include "node-agent/vmm/event_monitor.h"
#include "node-agent/vmm/version.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::test {

/// What the agent would take: $CLOUD_HYPERVISOR, else from PATH; empty when there is none.
std::string VmmBinary();
/// The one of tests/fakes says so in its version.
inline bool IsFake(const vmm::VmmVersion& version) {
  return version.build.find("(fake)") != std::string::npos;
}

class VmmProcess {
 public:
  /// With the command line that the agent uses.
  static std::unique_ptr<VmmProcess> Spawn(const std::string& directory);
  /// Spawn, and waits until it answers.
  static std::unique_ptr<VmmProcess> Start(const std::string& directory);
  ~VmmProcess();

  [[nodiscard]] const vmm::ApiClient& api() const { return api_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const host::Process& process() const { return process_.value(); }
  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  [[nodiscard]] std::string api_socket() const { return Path("api-1.sock"); }
  [[nodiscard]] bool alive() const;

  void Signal(int number) const;
  /// The wait status, once it ended; -1 after 20 s.
  int Wait();
  /// Whether the event was seen, from the start on or within 20 s.
  bool Saw(vmm::EventKind kind);
  [[nodiscard]] size_t CountEvents(vmm::EventKind kind);

 private:
  VmmProcess(std::string directory, pid_t pid);

  std::string directory_;
  pid_t pid_;
  UniqueFd pidfd_;
  Result<host::Process> process_;
  vmm::ApiClient api_;
  std::vector<vmm::Event> events_;
  std::unique_ptr<vmm::EventTail> tail_;
};

/// Whether it answers within some minutes at most.
bool GuestAnswers(const GuestClient& guest);

/// What comes back for these bytes: until `enough` was read, the peer closes, or nothing comes for
/// 300 ms.
std::string Exchange(const std::string& socket, std::string_view bytes);

}  // namespace dormouse::test
