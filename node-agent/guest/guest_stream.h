// One connection to a guest's agent: Cloud Hypervisor's hybrid vsock handshake, then frames.
//
// The guest is hostile: every wait has a deadline, the handshake line and every frame a cap, and no
// byte is believed unparsed. Errors: kUnavailable (nobody answers there yet, or it hung up),
// kPermission (somebody else than the VMM listens there), kDeadline, kCorrupt (the protocol was
// violated: do not retry in a loop), and what the guest itself reports. Blocking. One thread may
// wait in Next while another is in Send; each of them by one thread at a time.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "node-agent/host/vmm_socket.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"
#include "src/common/guest/frame.h"

namespace dormouse {

using Deadline = std::chrono::steady_clock::time_point;

class GuestStream {
 public:
  /// Connects to the VMM's vsock socket, asks for the agent's port and sends `first` (whole frames)
  /// behind it, so that the answer to a request costs one round trip.
  [[nodiscard]] static Result<GuestStream> Dial(const host::VmmSocket& socket,
                                                std::string_view first, Deadline deadline);
  GuestStream(GuestStream&&) noexcept = default;
  GuestStream& operator=(GuestStream&&) noexcept = default;

  /// All of it, or an error after which the stream is of no use.
  [[nodiscard]] Result<void> Send(std::string_view frames, Deadline deadline);
  /// The next frame (valid until the next call); nothing when the deadline passed first.
  [[nodiscard]] Result<std::optional<guest::Frame>> Next(Deadline deadline);
  /// The payload of the kReply that answers a request; a kError as the Error that it tells.
  [[nodiscard]] Result<std::string_view> Reply(Deadline deadline);
  /// From any thread: whoever waits in Next or Send gets an error.
  void Abort();
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  explicit GuestStream(UniqueFd fd) : fd_(std::move(fd)) {}
  [[nodiscard]] Result<void> ReadHandshake(Deadline deadline);
  /// Reads what is there into the decoder. False: the deadline passed.
  [[nodiscard]] Result<bool> ReadSome(std::string& into, Deadline deadline);

  UniqueFd fd_;
  guest::FrameDecoder decoder_;
  std::string incoming_;
};

}  // namespace dormouse
