#include "node-agent/guest/guest_client.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <vector>

namespace dormouse {
namespace {

using std::chrono::steady_clock;

/// For the way of the answer to a freeze that took all of its limit.
constexpr GuestClient::Timeout kFreezeMargin{2'000};
/// Connections that one restored guest is asked on at a time; then the first is given up.
constexpr size_t kMaxAsked = 8;
/// After a refusal: the VMM's socket appears at some moment of the restore.
constexpr GuestClient::Timeout kNobodyThere{5};

// Not our request was wrong but its answer.
Error AsCorrupt(const Error& error) {
  return error.Wrap("guest's answer").WithCode(ErrorCode::kCorrupt);
}

/// One request, one answer, through `parse`.
template <typename Parse>
auto Ask(const std::string& socket, std::string_view request, Deadline deadline, Parse parse)
    -> decltype(parse(std::string_view())) {
  DORMOUSE_ASSIGN(GuestStream stream, GuestStream::Dial(socket, request, deadline));
  DORMOUSE_ASSIGN(const std::string_view reply, stream.Reply(deadline));
  return parse(reply).map_error(AsCorrupt);
}

/// Until one of them has something to say, or the time is up.
Result<> AwaitAny(const std::vector<GuestStream>& streams, Deadline until) {
  std::vector<pollfd> waits;
  for (const GuestStream& stream : streams) waits.push_back({stream.fd(), POLLIN, 0});
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - steady_clock::now());
  const auto capped = std::clamp<int64_t>(left.count(), 0, 60'000);
  if (::poll(waits.data(), waits.size(), static_cast<int>(capped)) < 0 && errno != EINTR)
    return FailErrno("poll guest connections");
  return {};
}

Result<void> Nothing(std::string_view) {
  return {};
}

Result<std::unique_ptr<GuestSession>> OpenSession(const std::string& socket,
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

Result<guest::HealthReply> GuestClient::HealthAfterRestore(Timeout timeout, Timeout again) const {
  const Deadline deadline = steady_clock::now() + timeout;
  std::vector<GuestStream> asked;
  Deadline ask_at = steady_clock::now();
  Error last(ErrorCode::kDeadline, "guest agent does not answer yet");
  for (Deadline now = ask_at; now < deadline; now = steady_clock::now()) {
    if (now >= ask_at) {
      if (asked.size() == kMaxAsked) asked.erase(asked.begin());
      auto stream = GuestStream::Begin(socket_, guest::EncodeHealthRequest(), deadline);
      ask_at = now + (stream ? again : std::min(again, kNobodyThere));
      if (stream) {
        asked.push_back(std::move(*stream));
      } else {
        last = stream.error();
      }
    }
    DORMOUSE_TRY(AwaitAny(asked, std::min(ask_at, deadline)));
    for (auto stream = asked.begin(); stream != asked.end();) {
      const auto reply = stream->Reply(Deadline{});  // looks once
      if (reply) return guest::ParseHealthReply(*reply).map_error(AsCorrupt);
      if (reply.error().code() == ErrorCode::kCorrupt) return Fail(reply.error());
      if (reply.error().code() == ErrorCode::kDeadline) {
        ++stream;
        continue;
      }
      last = reply.error();
      stream = asked.erase(stream);
      ask_at = std::min(ask_at, steady_clock::now() + std::min(again, kNobodyThere));
    }
  }
  return Fail(last.WithCode(ErrorCode::kDeadline));
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

Result<ExecResult> RunInGuest(const GuestClient& client, const guest::ExecRequest& request,
                              std::chrono::milliseconds timeout, size_t max_output) {
  const Deadline deadline = steady_clock::now() + timeout;
  DORMOUSE_ASSIGN(const auto session, client.OpenExec(request, timeout));
  ExecResult result;
  for (;;) {
    DORMOUSE_ASSIGN(const auto event, session->Next(deadline));
    if (!event) return Fail(ErrorCode::kDeadline, "command in the guest did not end in time");
    if (event->kind == GuestEvent::Kind::kExit) {
      result.exit = event->exit;
      return result;
    }
    if (event->kind == GuestEvent::Kind::kStdinReady) continue;
    std::string& out = event->kind == GuestEvent::Kind::kStdout ? result.out : result.err;
    out.append(event->data, 0, max_output - std::min(max_output, out.size()));
  }
}

}  // namespace dormouse
