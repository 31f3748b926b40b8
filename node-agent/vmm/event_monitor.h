// The VMM's event monitor: pretty-printed JSON objects separated by blank lines
// (event_monitor/src/lib.rs, v53.0), in a file that the VMM writes and we follow.
//
// Not thread-safe. A guest can make events (it may reset its devices for ever), so all is bounded:
// an object of more than 16 KiB is skipped, and what has been read is punched out of the file.
// Events are told, not trusted: what counts is the process and vm.info.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::vmm {

enum class EventKind {
  kVmmStarting,
  kVmmShutdown,  ///< the VMM is about to exit: vmm.shutdown, SIGTERM, or a vCPU that failed
  kBooting,
  kBooted,
  kPausing,
  kPaused,
  kResuming,
  kResumed,
  kSnapshotting,
  kSnapshotted,  ///< comes before memory is written: trust the answer of vm.snapshot instead
  kRestoring,
  kRestored,
  kShutdown,  ///< the VM is gone: guest poweroff, or vm.shutdown
  kDeleted,
  kRebooting,  ///< guest reboot, panic with panic=-1, or triple fault: the VMM boots it again in
               ///< place
  kRebooted,
  kGuestPanic,  ///< pvpanic
  kOther,       ///< device resets and the like: source and name tell
};

struct Event {
  EventKind kind = EventKind::kOther;
  std::chrono::nanoseconds since_start{0};  ///< since the VMM process started
  std::string source;                       ///< "vm"
  std::string name;                         ///< "booted"
  std::map<std::string, std::string> properties;
};

/// The guest is over, but its VMM is not (powered off), or would boot it again (reboot, panic): who
/// sees it ends the VMM.
[[nodiscard]] bool EndsTheVm(EventKind kind);

/// "booted", for logs. Stable.
[[nodiscard]] std::string_view EventKindName(EventKind kind);

/// Cuts a byte stream into events. Bytes that are no event are skipped and counted; NUL bytes
/// (holes) are skipped.
class EventParser {
 public:
  std::vector<Event> Feed(std::string_view bytes);
  [[nodiscard]] uint64_t skipped() const { return skipped_; }

 private:
  void Finish(std::vector<Event>* events);

  std::string object_;
  int depth_ = 0;
  char previous_ = '\n';
  bool in_string_ = false;
  bool escaped_ = false;
  bool oversize_ = false;
  uint64_t skipped_ = 0;
};

/// Follows the file of one VMM from its start, so that a restarted agent sees again what is still
/// there.
class EventTail {
 public:
  /// kNotFound when it is not there: it is never created, as it must be its writer's, whose user is
  /// `vmm`.
  static Result<EventTail> Open(const std::string& path, uid_t vmm);

  /// The events since the last call; empty when there are none. Reads at most 256 KiB a call.
  Result<std::vector<Event>> Read();
  [[nodiscard]] uint64_t skipped() const { return parser_.skipped(); }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  explicit EventTail(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
  EventParser parser_;
  uint64_t offset_ = 0;
  uint64_t punched_ = 0;
};

}  // namespace dormouse::vmm
