// Frames of the guest protocol: what the host and the guest agent say to each other over one vsock
// stream (guest port 1024; the host dials through Cloud Hypervisor's hybrid vsock socket).
//
// A connection starts with one request frame of the host, answered by kReply or kError. A control
// connection may then carry further requests, one at a time. A connection whose request was kExec
// or kLogs becomes a stream of binary frames and ends with kExit. There is one exec per connection.
//
//   0      1      2        3         4            8
//   +------+------+--------+---------+------------+---------------+
//   | type | flags| version| 0       | length, LE | payload ...   |   length <= 64 KiB
//   +------+------+--------+---------+------------+---------------+
//
// Flow control: a side sends at most kInitialWindow bytes of a stream (stdin, stdout, stderr), plus
// what kWindow frames have granted since. So each side buffers a window per stream and no more, a
// slow reader of stdout holds up neither stderr nor signals, and more than was granted is a
// violation.
//
// Neither side trusts the other. Everything here is pure (no I/O), bounded, and not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse::guest {

inline constexpr uint32_t kVsockPort = 1024;
inline constexpr uint8_t kProtocolVersion = 1;
inline constexpr size_t kFrameHeaderBytes = 8;
inline constexpr size_t kMaxPayloadBytes = 64 * 1024;
inline constexpr uint32_t kInitialWindow = 128 * 1024;
/// No grant may take a window above this; a peer that tries has violated the protocol.
inline constexpr uint32_t kMaxWindow = 1024 * 1024;

enum class FrameType : uint8_t {
  // Requests, host to guest: JSON (messages.h).
  kHealth = 0x01,
  kConfigure = 0x02,
  kStartWorkload = 0x03,
  kWorkloadStatus = 0x04,
  kExec = 0x05,
  kLogs = 0x06,
  kPowerOff = 0x07,
  kStopWorkload = 0x08,
  kFreeze = 0x09,
  kThaw = 0x0a,
  // Answers, guest to host: JSON.
  kReply = 0x40,
  kError = 0x41,
  // Streams: binary.
  kStdin = 0x80,   ///< host to guest; kFlagEnd: no more will come
  kStdout = 0x81,  ///< guest to host; kFlagEnd: closed; kFlagLost: older output was overwritten
                   ///< before this
  kStderr = 0x82,
  kResize = 0x83,  ///< host to guest: rows u16, columns u16
  kSignal = 0x84,  ///< host to guest: number u8, sent to the process group
  kWindow = 0x85,  ///< both ways: stream u8 (its frame type), 3 zero bytes, bytes u32
  kExit = 0x86,    ///< guest to host, the last frame: code u32, signal u32
};

inline constexpr uint8_t kFlagEnd = 0x01;
inline constexpr uint8_t kFlagLost = 0x02;

struct Frame {
  FrameType type;
  uint8_t flags = 0;
  std::string_view payload;  ///< into the decoder's buffer: valid until its next call
};

/// Appends one frame to `out`. The payload must not exceed kMaxPayloadBytes (checked: aborts).
void AppendFrame(std::string& out, FrameType type, std::string_view payload, uint8_t flags = 0);
[[nodiscard]] std::string EncodeFrame(FrameType type, std::string_view payload, uint8_t flags = 0);

/// Cuts a byte stream into frames. A violation (kCorrupt) is final: close the connection.
/// Its buffer never holds more than one frame plus what the last Append brought.
class FrameDecoder {
 public:
  /// Takes bytes as they came. Call Next until it has no more before appending again.
  void Append(std::string_view bytes);
  /// The next whole frame, or nothing yet. A header is judged as soon as its 8 bytes are there.
  [[nodiscard]] Result<std::optional<Frame>> Next();
  /// True in the middle of a frame: an end of stream here is a violation.
  [[nodiscard]] bool HasPartialFrame() const { return buffer_.size() > consumed_; }
  [[nodiscard]] size_t buffered_bytes() const { return buffer_.size() - consumed_; }

 private:
  std::string buffer_;
  size_t consumed_ = 0;
  std::optional<Error> broken_;
};

struct TerminalSize {
  uint16_t rows = 24;
  uint16_t columns = 80;
};
/// How a process ended: by exit (signal 0) or by a signal (code 0).
struct ExitStatus {
  uint32_t code = 0;
  uint32_t signal = 0;
  /// As a shell reports it: the code, or 128 + signal.
  [[nodiscard]] int ShellCode() const {
    return static_cast<int>(signal != 0 ? 128 + signal : code);
  }
};
struct WindowGrant {
  FrameType stream;  ///< kStdin, kStdout or kStderr
  uint32_t bytes = 0;
};

[[nodiscard]] std::string EncodeResize(TerminalSize size);
[[nodiscard]] std::string EncodeSignal(uint8_t number);
[[nodiscard]] std::string EncodeWindow(WindowGrant grant);
[[nodiscard]] std::string EncodeExit(ExitStatus status);
[[nodiscard]] Result<TerminalSize> DecodeResize(std::string_view payload);
/// A signal number of Linux, 1 to 64.
[[nodiscard]] Result<uint8_t> DecodeSignal(std::string_view payload);
[[nodiscard]] Result<WindowGrant> DecodeWindow(std::string_view payload);
[[nodiscard]] Result<ExitStatus> DecodeExit(std::string_view payload);

/// The bytes of one stream that may still be sent (or, on the receiving side, still arrive).
class Window {
 public:
  [[nodiscard]] uint32_t available() const { return available_; }
  /// kCorrupt when more is taken than is there.
  [[nodiscard]] Result<void> Take(size_t bytes);
  /// kCorrupt when it would pass kMaxWindow.
  [[nodiscard]] Result<void> Grant(uint32_t bytes);

 private:
  uint32_t available_ = kInitialWindow;
};

}  // namespace dormouse::guest
