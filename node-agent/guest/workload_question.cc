#include "node-agent/guest/workload_question.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "node-agent/guest/vsock_dial.h"
#include "src/common/guest/messages.h"

namespace dormouse {
namespace {

using guest::FrameType;

// A status and the VMM's line take some 300 bytes.
constexpr size_t kMaxAnswer = 4096;
static_assert(WorkloadQuestion::kLimit > std::chrono::milliseconds(guest::kMaxWaitMs));

}  // namespace

Result<> WorkloadQuestion::Ask(host::VmmSocket vsock, MonotonicTime now) {
  if (refused_) return Fail(ErrorCode::kUnsupported, "the guest's agent does not wait for its end");
  if (due_) return {};
  socket_ = std::move(vsock);
  due_ = std::max(now, not_before_);
  return {};
}

void WorkloadQuestion::Drop() {
  fd_.Reset();
  handshake_.clear();
  decoder_.reset();
  received_ = 0;
  due_.reset();
}

bool WorkloadQuestion::OnDue(MonotonicTime now) {
  if (!due_ || now < *due_) return false;
  return fd_ ? Over(now) : Dial(now);
}

bool WorkloadQuestion::Dial(MonotonicTime now) {
  asked_at_ = now;
  not_before_ = now + pause_;
  auto fd = host::ConnectVmm(socket_);
  if (!fd) return Over(now);
  const std::string opening =
      VsockOpening(guest::Encode(guest::WorkloadStatusRequest{guest::kMaxWaitMs}));
  // What no one has read from yet has room for so little.
  const ssize_t sent = ::send(fd->get(), opening.data(), opening.size(), MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(opening.size())) return Over(now);
  fd_ = std::move(*fd);
  due_ = now + kLimit;
  return false;
}

bool WorkloadQuestion::OnReadable(MonotonicTime now) {
  if (!fd_) return false;
  std::array<char, kMaxAnswer> bytes;
  const ssize_t got = ::recv(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (got <= 0) return Over(now);
  const std::string_view read(bytes.data(), static_cast<size_t>(got));
  received_ += read.size();
  if (received_ > kMaxAnswer) return Over(now);
  if (decoder_) {
    decoder_->Append(read);
  } else {
    handshake_ += read;
    const auto line = HandshakeBytes(handshake_);
    if (!line) return Over(now);
    if (*line == 0) return false;
    decoder_.emplace().Append(std::string_view(handshake_).substr(*line));
    handshake_.clear();
  }
  const auto frame = decoder_->Next();
  if (!frame) return Over(now);
  return *frame && Judge(**frame, now);
}

bool WorkloadQuestion::Judge(const guest::Frame& frame, MonotonicTime now) {
  if (frame.type == FrameType::kError) {
    const ErrorCode code = guest::ParseError(frame.payload).code();
    refused_ = code == ErrorCode::kUnsupported || code == ErrorCode::kInvalid;
    return Over(now);
  }
  if (frame.type != FrameType::kReply || frame.flags != 0) return Over(now);
  const auto status = guest::ParseWorkloadStatus(frame.payload);
  if (!status || status->state != guest::WorkloadState::kRunning) return Over(now);
  Close(now);
  due_ = std::max(now, not_before_);
  return false;
}

void WorkloadQuestion::Close(MonotonicTime now) {
  Drop();
  pause_ = now - asked_at_ >= kLastPause ? kFirstPause : std::min(pause_ * 2, kLastPause);
}

bool WorkloadQuestion::Over(MonotonicTime now) {
  Close(now);
  return true;
}

}  // namespace dormouse
