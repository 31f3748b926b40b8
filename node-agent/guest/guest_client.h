// The agent's way to a sandbox's guest: requests, one connection each, over the VMM's vsock socket.
//
// A value: holds no connection, so it is thread-safe and outlives the VM. Blocking, for worker
// threads; each call returns within its timeout (plus scheduling). The guest is hostile: see
// guest_stream.h for the caps and for what the error codes mean. In short, kUnavailable and
// kDeadline are "not ready yet", kCorrupt is a guest (or something in its place) that does not
// speak the protocol.
#pragma once

#include <chrono>
#include <memory>

#include "node-agent/guest/guest_session.h"
#include "src/common/base/result.h"
#include "src/common/guest/messages.h"

namespace dormouse {

class GuestClient {
 public:
  using Timeout = std::chrono::milliseconds;

  /// `vsock`: VmConfig's vsock.socket, and whose it is.
  explicit GuestClient(host::VmmSocket vsock) : socket_(std::move(vsock)) {}

  /// One connection, one round trip. While the guest boots the VMM holds the connection until the
  /// guest's driver is up (v53: for 2 s at most), so asking early costs nothing and answers
  /// soonest.
  [[nodiscard]] Result<guest::HealthReply> Health(Timeout timeout) const;
  [[nodiscard]] Result<void> Configure(const guest::ConfigureRequest& request,
                                       Timeout timeout) const;
  /// Idempotent by the request's id.
  [[nodiscard]] Result<guest::WorkloadStatus> StartWorkload(
      const guest::StartWorkloadRequest& request, Timeout timeout) const;
  /// Answers when the workload has ended or `wait` (at most a minute) is over; `timeout` counts on
  /// top.
  [[nodiscard]] Result<guest::WorkloadStatus> WorkloadStatus(Timeout wait, Timeout timeout) const;
  [[nodiscard]] Result<guest::WorkloadStatus> StopWorkload(Timeout grace, Timeout timeout) const;
  /// See guest::FreezeRequest: also a freeze that the limit cut short is an answer, not an error.
  /// `limit` is at most a minute; the guest has two seconds more to say so.
  [[nodiscard]] Result<guest::FreezeReply> Freeze(Timeout limit) const;
  /// See guest::ThawRequest. kUnavailable (nobody answers there yet, or it hung up), kDeadline and
  /// kBusy (a thaw that was asked for before goes on): ask again, with the same request. Hooks of a
  /// clone may take 10 s.
  [[nodiscard]] Result<void> Thaw(const guest::ThawRequest& request, Timeout timeout) const;
  /// Accepted, not done: the VMM's exit tells the rest.
  [[nodiscard]] Result<void> PowerOff(const guest::PowerOffRequest& request, Timeout timeout) const;

  /// Starts a command: kNotFound, kPermission, kInvalid as the guest says. `timeout` is for the
  /// start.
  [[nodiscard]] Result<std::unique_ptr<GuestSession>> OpenExec(const guest::ExecRequest& request,
                                                               Timeout timeout) const;
  [[nodiscard]] Result<std::unique_ptr<GuestSession>> OpenLogs(const guest::LogsRequest& request,
                                                               Timeout timeout) const;

 private:
  host::VmmSocket socket_;
};

}  // namespace dormouse
