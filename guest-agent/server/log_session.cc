#include "guest-agent/server/log_session.h"

#include <algorithm>

namespace dormouse::guest {
namespace {
constexpr size_t kChunk = 16 * 1024;
}  // namespace

LogSession::LogSession(Context& context, Connection& connection, const LogsRequest& request)
    : context_(context),
      connection_(connection),
      follow_(request.follow),
      until_(context.workload.log().end()),
      observer_(context.workload.Observe([this] { Pump(); })) {
  const OutputRing& log = context.workload.log();
  position_ = log.end() - std::min(request.tail_bytes, log.end() - log.begin());
}

LogSession::~LogSession() {
  context_.workload.Forget(observer_);
}

Result<void> LogSession::OnFrame(const Frame& frame) {
  if (frame.type != FrameType::kWindow) {
    return Fail(ErrorCode::kInvalid, "a frame that has no place in a log stream");
  }
  DORMOUSE_ASSIGN(const WindowGrant grant, DecodeWindow(frame.payload));
  DORMOUSE_TRY(window_.Grant(grant.bytes));
  Pump();
  return {};
}

void LogSession::Pump() {
  const OutputRing& log = context_.workload.log();
  while (!finished_ && connection_.HasRoom()) {
    const uint64_t until = follow_ ? log.end() : until_;
    if (position_ >= until) break;
    const size_t want =
        std::min({kChunk, size_t{window_.available()}, static_cast<size_t>(until - position_)});
    if (want == 0) return;
    const auto slice = log.Read(position_, want);
    const uint8_t flags = slice.position > position_ ? kFlagLost : 0;
    (void)window_.Take(slice.bytes.size());
    connection_.Send(EncodeFrame(FrameType::kStdout, slice.bytes, flags));
    position_ = slice.position + slice.bytes.size();
  }
  const bool at_end = position_ >= (follow_ ? log.end() : until_);
  const bool more = follow_ && context_.workload.status().state == WorkloadState::kRunning;
  if (finished_ || !at_end || more) return;
  finished_ = true;
  connection_.Send(EncodeExit({}));
  connection_.Finish();
}

}  // namespace dormouse::guest
