// One waiting question to a guest: has your workload ended? The guest answers when it has, or after
// a minute, and is then asked again; meanwhile nothing is asked of it, so that an idle guest
// sleeps.
//
// A state machine over one non-blocking socket, for an event loop that owns it (vmm::Watch): not
// thread-safe, starts no thread, keeps less than a kilobyte while it waits. The guest is hostile:
// an answer has a cap and a limit in time, and however soon answers come or connections break, the
// guest is asked no sooner again than a second later, then two, and so on up to half a minute.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "node-agent/host/vmm_socket.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"
#include "src/common/guest/frame.h"

namespace dormouse {

class WorkloadQuestion {
 public:
  /// From one asking to the next at least; doubled after each that came to its end sooner than the
  /// last of these.
  static constexpr std::chrono::seconds kFirstPause{1};
  static constexpr std::chrono::seconds kLastPause{30};
  /// For an answer, from the asking on.
  static constexpr std::chrono::seconds kLimit{70};

  /// From now on the guest behind `vsock` is asked, until there is something to look at or
  /// Drop. Harmless where it is being asked already. kUnsupported: it refused, and is not asked any
  /// more: poll.
  [[nodiscard]] Result<> Ask(host::VmmSocket vsock, MonotonicTime now);
  /// Nothing is open to the guest any more, and nothing will be until Ask.
  void Drop();

  /// When OnDue is to be called; nothing while nothing is asked.
  [[nodiscard]] std::optional<MonotonicTime> due() const { return due_; }
  /// When it is readable OnReadable is to be called; -1: none. Another after each of the calls
  /// here.
  [[nodiscard]] int fd() const { return fd_.get(); }

  // True: the question is over and the sandbox is to be looked at, as its workload does not run any
  // more, or nobody knows (the connection broke, or what came was no answer).
  [[nodiscard]] bool OnDue(MonotonicTime now);
  [[nodiscard]] bool OnReadable(MonotonicTime now);

 private:
  bool Dial(MonotonicTime now);
  bool Judge(const guest::Frame& frame, MonotonicTime now);
  /// This asking has come to its end, whichever.
  void Close(MonotonicTime now);
  bool Over(MonotonicTime now);

  host::VmmSocket socket_;
  UniqueFd fd_;
  std::string handshake_;  ///< until it is whole
  std::optional<guest::FrameDecoder> decoder_;
  size_t received_ = 0;
  std::optional<MonotonicTime> due_;  ///< to ask, or to give up
  MonotonicTime asked_at_{};
  MonotonicTime not_before_{};  ///< the next asking
  std::chrono::seconds pause_ = kFirstPause;
  bool refused_ = false;
};

}  // namespace dormouse
