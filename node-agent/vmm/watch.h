// One thread that watches all VMMs of the node: that they live (pidfd), what they say (event
// monitor), what their guests print (serial line), and, where it is asked for, that their workloads
// run (a waiting question to the guest: workload_question.h).
//
// Thread-safe. The callback runs on the watch's thread, one call at a time: it must not block, nor
// call back into the Watch; hand the key to the work queue and return. It costs one thread and a
// few kB a VM.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/host/vmm_socket.h"
#include "node-agent/vmm/event_monitor.h"
#include "node-agent/vmm/serial_ring.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::vmm {

struct WatchSpec {
  std::string key;         ///< the sandbox's UID
  UniqueFd pidfd;          ///< of the VMM; a dup, ours from now on. None = its death is not watched
  std::string event_file;  ///< must exist; empty = none
  uid_t vmm = 0;           ///< the VMM's user, whose the event file is
  /// Connected to when it appears, and again when it breaks.
  std::optional<host::VmmSocket> serial_socket{};
  std::string serial_log;  ///< beside the record; capped
};

struct WatchNotice {
  /// kWorkload: it has ended, or the guest does not say; it is not waited for any more.
  enum class Kind { kEvent, kExited, kWorkload };
  Kind kind = Kind::kEvent;
  Event event;  ///< for kEvent
};

class Watch {
 public:
  using Callback = std::function<void(const std::string& key, const WatchNotice& notice)>;

  static Result<std::unique_ptr<Watch>> Start(Callback callback, SerialOptions serial = {},
                                              const Clock& clock = Clock::System());
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  /// Starts to watch; events that are in the file already are told again, a VMM that is dead
  /// already is told at once. A watch with the same key is replaced (a new incarnation).
  Result<> Add(WatchSpec spec);
  /// When it returns, no callback for the key runs or will run.
  void Remove(const std::string& key);

  /// From now on the workload of the guest behind `vsock` is waited for, until kWorkload is
  /// told. Harmless while it is; asking ever again costs a guest no more than a question a second,
  /// and less where it never waits. kNotFound: not watched, or its VMM is dead; kUnsupported: this
  /// guest does not wait.
  Result<> AwaitWorkload(const std::string& key, host::VmmSocket vsock);
  /// When it returns, nothing is open to the guest.
  void StopAwaiting(const std::string& key);

  /// The last lines of the guest's console, for events and people. Empty when there are none.
  [[nodiscard]] std::string SerialTail(const std::string& key, size_t lines) const;
  /// How its VMM ended (host::ExitStatusOf), until Remove.
  [[nodiscard]] std::optional<int> ExitStatus(const std::string& key) const;
  /// The newest events, at most 32, oldest first; also after the VMM's death, until Remove.
  [[nodiscard]] std::vector<Event> RecentEvents(const std::string& key) const;

 private:
  class Loop;
  explicit Watch(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace dormouse::vmm
