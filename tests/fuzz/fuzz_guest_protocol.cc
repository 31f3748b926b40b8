// Bytes of a hostile peer through the frame decoder and every parser of the guest protocol. The
// first byte of the input chooses how the rest is cut into pieces.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "src/common/guest/frame.h"
#include "src/common/guest/messages.h"

namespace {

using namespace dormouse::guest;

/// What parsed must encode and parse again: a parser that lets something odd through shows here.
template <typename T>
void RoundTrip(const dormouse::Result<T>& parsed, dormouse::Result<T> (*parse)(std::string_view)) {
  if (!parsed) return;
  const dormouse::Result<std::string> frame = Encode(*parsed);
  if (!frame) return;  // the same content may be longer in our own spelling
  if (!parse(std::string_view(*frame).substr(kFrameHeaderBytes))) std::abort();
}

void Interpret(const Frame& frame) {
  (void)DecodeResize(frame.payload);
  (void)DecodeSignal(frame.payload);
  (void)DecodeExit(frame.payload);
  if (const auto grant = DecodeWindow(frame.payload)) {
    Window window;
    if (window.Grant(grant->bytes) && window.available() > kMaxWindow) std::abort();
  }
  switch (frame.type) {
    case FrameType::kConfigure:
      return RoundTrip(ParseConfigure(frame.payload), ParseConfigure);
    case FrameType::kStartWorkload:
      return RoundTrip(ParseStartWorkload(frame.payload), ParseStartWorkload);
    case FrameType::kExec:
      return RoundTrip(ParseExec(frame.payload), ParseExec);
    case FrameType::kWorkloadStatus:
      (void)ParseWorkloadStatusRequest(frame.payload);
      (void)ParseWorkloadStatus(frame.payload);
      return;
    case FrameType::kFreeze:
      if (const auto parsed = ParseFreeze(frame.payload); parsed && parsed->limit_ms > kMaxWaitMs) {
        std::abort();
      }
      return;
    case FrameType::kThaw:
      return RoundTrip(ParseThaw(frame.payload), ParseThaw);
    case FrameType::kLogs:
      (void)ParseLogs(frame.payload);
      return;
    case FrameType::kPowerOff:
      (void)ParsePowerOff(frame.payload);
      return;
    case FrameType::kStopWorkload:
      (void)ParseStopWorkload(frame.payload);
      return;
    default:
      (void)ParseHealthReply(frame.payload);
      if (const auto reply = ParseFreezeReply(frame.payload);
          reply && reply->detail.size() > kMaxErrorText) {
        std::abort();
      }
      if (ParseError(frame.payload).message().size() > 2 * kMaxErrorText) std::abort();
      return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  if (data[0] >=
      0x80) {  // straight to the parsers, past the header that mutation seldom gets right
    const std::string_view payload(reinterpret_cast<const char*>(data) + 2, size - 2);
    Interpret(Frame{static_cast<FrameType>(data[1]), 0, payload});
    return 0;
  }
  const size_t step = data[0] == 0 ? size : data[0];
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  FrameDecoder decoder;
  for (size_t at = 0; at < bytes.size(); at += step) {
    decoder.Append(bytes.substr(at, step));
    for (;;) {
      const auto frame = decoder.Next();
      if (!frame) return 0;
      if (!*frame) break;
      Interpret(**frame);
    }
    if (decoder.buffered_bytes() > kFrameHeaderBytes + kMaxPayloadBytes + step) std::abort();
  }
  return 0;
}
