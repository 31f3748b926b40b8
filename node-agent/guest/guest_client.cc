#include "node-agent/guest/guest_client.h"

#include <algorithm>

namespace dormouse {
namespace {

using std::chrono::steady_clock;

/// For the way of the answer to a freeze that took all of its limit.
constexpr GuestClient::Timeout kFreezeMargin{2'000};

/// One request, one answer, through `parse`.
template <typename Parse>
auto Ask(const host::VmmSocket& socket, std::string_view request, Deadline deadline, Parse parse)
    -> decltype(parse(std::string_view())) {
  DORMOUSE_ASSIGN(GuestStream stream, GuestStream::Dial(socket, request, deadline));
  DORMOUSE_ASSIGN(const std::string_view reply, stream.Reply(deadline));
  auto parsed = parse(reply);
  // Not our request was wrong but its answer.
  if (!parsed) return Fail(parsed.error().Wrap("guest's answer").WithCode(ErrorCode::kCorrupt));
  return parsed;
}

Result<void> Nothing(std::string_view) {
  return {};
}

Result<std::unique_ptr<GuestSession>> OpenSession(const host::VmmSocket& socket,
                                                  std::string_view request, Deadline deadline) {
  DORMOUSE_ASSIGN(GuestStream stream, GuestStream::Dial(socket, request, deadline));
  DORMOUSE_TRY(stream.Reply(deadline));
  return std::make_unique<GuestSession>(std::move(stream));
}

}  // namespace

Result<guest::HealthReply> GuestClient::Health(Timeout timeout) const {
  return Ask(socket_, guest::EncodeHealthRequest(), steady_clock::now() + timeout,
             guest::ParseHealthReply);
}

Result<void> GuestClient::Configure(const guest::ConfigureRequest& request, Timeout timeout) const {
  DORMOUSE_ASSIGN(const std::string frame, guest::Encode(request));
  return Ask(socket_, frame, steady_clock::now() + timeout, Nothing);
}

Result<guest::WorkloadStatus> GuestClient::StartWorkload(const guest::StartWorkloadRequest& request,
                                                         Timeout timeout) const {
  DORMOUSE_ASSIGN(const std::string frame, guest::Encode(request));
  return Ask(socket_, frame, steady_clock::now() + timeout, guest::ParseWorkloadStatus);
}

Result<guest::WorkloadStatus> GuestClient::WorkloadStatus(Timeout wait, Timeout timeout) const {
  wait = std::clamp(wait, Timeout(0), Timeout(guest::kMaxWaitMs));
  return Ask(socket_,
             guest::Encode(guest::WorkloadStatusRequest{static_cast<uint32_t>(wait.count())}),
             steady_clock::now() + wait + timeout, guest::ParseWorkloadStatus);
}

Result<guest::WorkloadStatus> GuestClient::StopWorkload(Timeout grace, Timeout timeout) const {
  grace = std::clamp(grace, Timeout(0), Timeout(guest::kMaxWaitMs));
  return Ask(socket_,
             guest::Encode(guest::StopWorkloadRequest{static_cast<uint32_t>(grace.count())}),
             steady_clock::now() + grace + timeout, guest::ParseWorkloadStatus);
}

Result<guest::FreezeReply> GuestClient::Freeze(Timeout limit) const {
  limit = std::clamp(limit, Timeout(0), Timeout(guest::kMaxWaitMs));
  return Ask(socket_, guest::Encode(guest::FreezeRequest{static_cast<uint32_t>(limit.count())}),
             steady_clock::now() + limit + kFreezeMargin, guest::ParseFreezeReply);
}

Result<void> GuestClient::Thaw(const guest::ThawRequest& request, Timeout timeout) const {
  DORMOUSE_ASSIGN(const std::string frame, guest::Encode(request));
  return Ask(socket_, frame, steady_clock::now() + timeout, Nothing);
}

Result<void> GuestClient::PowerOff(const guest::PowerOffRequest& request, Timeout timeout) const {
  return Ask(socket_, guest::Encode(request), steady_clock::now() + timeout, Nothing);
}

Result<std::unique_ptr<GuestSession>> GuestClient::OpenExec(const guest::ExecRequest& request,
                                                            Timeout timeout) const {
  DORMOUSE_ASSIGN(const std::string frame, guest::Encode(request));
  return OpenSession(socket_, frame, steady_clock::now() + timeout);
}

Result<std::unique_ptr<GuestSession>> GuestClient::OpenLogs(const guest::LogsRequest& request,
                                                            Timeout timeout) const {
  return OpenSession(socket_, guest::Encode(request), steady_clock::now() + timeout);
}

}  // namespace dormouse
