#include "src/common/guest/frame.h"

#include <cstdlib>

namespace dormouse::guest {
namespace {

void AppendU16(std::string& out, uint16_t value) {
  out.push_back(static_cast<char>(value & 0xff));
  out.push_back(static_cast<char>(value >> 8));
}

void AppendU32(std::string& out, uint32_t value) {
  AppendU16(out, static_cast<uint16_t>(value & 0xffff));
  AppendU16(out, static_cast<uint16_t>(value >> 16));
}

uint32_t ByteAt(std::string_view bytes, size_t at) {
  return static_cast<uint8_t>(bytes[at]);
}

uint16_t ReadU16(std::string_view bytes, size_t at) {
  return static_cast<uint16_t>(ByteAt(bytes, at) | ByteAt(bytes, at + 1) << 8);
}

uint32_t ReadU32(std::string_view bytes, size_t at) {
  return ReadU16(bytes, at) | static_cast<uint32_t>(ReadU16(bytes, at + 2)) << 16;
}

Result<void> CheckSize(std::string_view name, std::string_view payload, size_t want) {
  if (payload.size() == want) return {};
  return Fail(ErrorCode::kCorrupt, std::string(name) + " frame of " +
                                       std::to_string(payload.size()) + " bytes, not " +
                                       std::to_string(want));
}

}  // namespace

void AppendFrame(std::string& out, FrameType type, std::string_view payload, uint8_t flags) {
  if (payload.size() > kMaxPayloadBytes) std::abort();  // the callers cut streams and cap JSON
  out.push_back(static_cast<char>(type));
  out.push_back(static_cast<char>(flags));
  out.push_back(static_cast<char>(kProtocolVersion));
  out.push_back('\0');
  AppendU32(out, static_cast<uint32_t>(payload.size()));
  out.append(payload);
}

std::string EncodeFrame(FrameType type, std::string_view payload, uint8_t flags) {
  std::string out;
  out.reserve(kFrameHeaderBytes + payload.size());
  AppendFrame(out, type, payload, flags);
  return out;
}

void FrameDecoder::Append(std::string_view bytes) {
  if (broken_) return;
  buffer_.erase(0, consumed_);
  consumed_ = 0;
  buffer_.append(bytes);
}

Result<std::optional<Frame>> FrameDecoder::Next() {
  if (broken_) return Fail(*broken_);
  const std::string_view rest = std::string_view(buffer_).substr(consumed_);
  if (rest.size() < kFrameHeaderBytes) return std::nullopt;
  const auto violation = [this](std::string message) {
    broken_ = Error(ErrorCode::kCorrupt, std::move(message));
    buffer_.clear();
    consumed_ = 0;
    return Fail(*broken_);
  };
  if (ByteAt(rest, 2) != kProtocolVersion) {
    return violation("frame of protocol version " + std::to_string(ByteAt(rest, 2)) + ", not " +
                     std::to_string(kProtocolVersion));
  }
  if (ByteAt(rest, 3) != 0) return violation("frame header with a reserved byte set");
  const uint32_t length = ReadU32(rest, 4);
  if (length > kMaxPayloadBytes) {
    return violation("frame of " + std::to_string(length) + " bytes, above the limit of " +
                     std::to_string(kMaxPayloadBytes));
  }
  if (rest.size() < kFrameHeaderBytes + length) return std::nullopt;
  consumed_ += kFrameHeaderBytes + length;
  return Frame{static_cast<FrameType>(ByteAt(rest, 0)), static_cast<uint8_t>(ByteAt(rest, 1)),
               rest.substr(kFrameHeaderBytes, length)};
}

std::string EncodeResize(TerminalSize size) {
  std::string payload;
  AppendU16(payload, size.rows);
  AppendU16(payload, size.columns);
  return EncodeFrame(FrameType::kResize, payload);
}

std::string EncodeSignal(uint8_t number) {
  return EncodeFrame(FrameType::kSignal, std::string(1, static_cast<char>(number)));
}

std::string EncodeWindow(WindowGrant grant) {
  std::string payload(1, static_cast<char>(grant.stream));
  payload.append(3, '\0');
  AppendU32(payload, grant.bytes);
  return EncodeFrame(FrameType::kWindow, payload);
}

std::string EncodeExit(ExitStatus status) {
  std::string payload;
  AppendU32(payload, status.code);
  AppendU32(payload, status.signal);
  return EncodeFrame(FrameType::kExit, payload);
}

Result<TerminalSize> DecodeResize(std::string_view payload) {
  DORMOUSE_TRY(CheckSize("resize", payload, 4));
  return TerminalSize{ReadU16(payload, 0), ReadU16(payload, 2)};
}

Result<uint8_t> DecodeSignal(std::string_view payload) {
  DORMOUSE_TRY(CheckSize("signal", payload, 1));
  const auto number = static_cast<uint8_t>(payload[0]);
  if (number < 1 || number > 64) {
    return Fail(ErrorCode::kCorrupt, "signal number " + std::to_string(number));
  }
  return number;
}

Result<WindowGrant> DecodeWindow(std::string_view payload) {
  DORMOUSE_TRY(CheckSize("window", payload, 8));
  const auto stream = static_cast<FrameType>(ByteAt(payload, 0));
  if (stream != FrameType::kStdin && stream != FrameType::kStdout && stream != FrameType::kStderr) {
    return Fail(ErrorCode::kCorrupt, "window of no stream");
  }
  return WindowGrant{stream, ReadU32(payload, 4)};
}

Result<ExitStatus> DecodeExit(std::string_view payload) {
  DORMOUSE_TRY(CheckSize("exit", payload, 8));
  const ExitStatus status{ReadU32(payload, 0), ReadU32(payload, 4)};
  if (status.code > 255 || status.signal > 127 || (status.code != 0 && status.signal != 0)) {
    return Fail(ErrorCode::kCorrupt, "exit status that no process has");
  }
  return status;
}

Result<void> Window::Take(size_t bytes) {
  if (bytes > available_) {
    return Fail(ErrorCode::kCorrupt, std::to_string(bytes) + " bytes sent with a window of " +
                                         std::to_string(available_));
  }
  available_ -= static_cast<uint32_t>(bytes);
  return {};
}

Result<void> Window::Grant(uint32_t bytes) {
  if (bytes > kMaxWindow || available_ + bytes > kMaxWindow) {
    return Fail(ErrorCode::kCorrupt, "window grant of " + std::to_string(bytes) + " bytes");
  }
  available_ += bytes;
  return {};
}

}  // namespace dormouse::guest
