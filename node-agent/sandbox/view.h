// What the agent lets be looked at, by the person on call and by metrics: its own view of its
// sandboxes.
//
// Thread-safe. Nothing here waits for a worker: a sandbox whose reconcile hangs can be looked at
// too.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/host/vmm_socket.h"
#include "node-agent/machine/owned.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"
#include "src/common/kube/object_meta.h"

namespace dormouse {

struct SandboxSummary {
  std::string uid, short_id, ns, name;
  std::string phase;         ///< as last reported
  std::string ready_reason;  ///< of the Ready condition as last reported
  std::string image;
  int pid = 0;  ///< of the VMM; 0 = none
  uint64_t incarnation = 0;
  int restart_count = 0;
  int vcpus = 0;
  int64_t memory_bytes = 0;
  std::string host_address;
  int64_t disk_bytes = 0;  ///< the disk that the guest sees
  int64_t disk_allocated_bytes = 0;
  int64_t disk_used_bytes = 0;  ///< chunks that differ from the base
  std::optional<WallTime> started_at;
  bool running = false;  ///< holds vCPUs and memory now
};

struct GuestAccess {
  std::string uid;
  host::VmmSocket vsock;  ///< for guest/guest_client.h
  /// While it is held somebody is in the sandbox, which is not idle.
  std::shared_ptr<const void> session{};
};

class AgentView {
 public:
  virtual ~AgentView() = default;
  [[nodiscard]] virtual std::vector<SandboxSummary> List() const = 0;
  /// JSON: {"record", "plan", "kernel", "vmm", "guest", "api"}: the agent's view beside the API's.
  /// kNotFound when no sandbox of that name is here.
  [[nodiscard]] virtual Result<std::string> Show(const kube::ObjectKey& key) const = 0;
  /// kNotFound, or kUnavailable when its VM does not run now.
  [[nodiscard]] virtual Result<GuestAccess> Guest(const kube::ObjectKey& key) const = 0;
  /// The last lines of the serial console, printable.
  [[nodiscard]] virtual Result<std::string> ConsoleTail(const kube::ObjectKey& key,
                                                        size_t lines) const = 0;
  /// What no sandbox accounts for; with `remove`, takes it away first and returns what could not
  /// be.
  [[nodiscard]] virtual Result<std::vector<Leak>> Sweep(bool remove) = 0;
};

}  // namespace dormouse
