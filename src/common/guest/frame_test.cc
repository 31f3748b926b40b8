#include "src/common/guest/frame.h"

#include <gtest/gtest.h>

namespace dormouse::guest {
namespace {

std::string Header(uint8_t type, uint8_t flags, uint8_t version, uint8_t reserved,
                   uint32_t length) {
  std::string out;
  for (const uint32_t byte :
       {uint32_t{type}, uint32_t{flags}, uint32_t{version}, uint32_t{reserved}, length & 0xff,
        length >> 8 & 0xff, length >> 16 & 0xff, length >> 24}) {
    out.push_back(static_cast<char>(byte));
  }
  return out;
}

TEST(FrameDecoderTest, FramesComeOutWholeHoweverTheBytesArrive) {
  const std::string wire = EncodeFrame(FrameType::kStdout, "hello", kFlagEnd) +
                           EncodeFrame(FrameType::kReply, "") +
                           EncodeFrame(FrameType::kStderr, std::string(kMaxPayloadBytes, 'x'));
  for (const size_t step : {size_t{1}, size_t{3}, size_t{7}, size_t{4096}, wire.size()}) {
    FrameDecoder decoder;
    std::vector<std::pair<FrameType, size_t>> got;
    for (size_t at = 0; at < wire.size(); at += step) {
      decoder.Append(std::string_view(wire).substr(at, step));
      for (;;) {
        const auto frame = decoder.Next();
        ASSERT_TRUE(frame.has_value());
        if (!*frame) break;
        got.emplace_back((*frame)->type, (*frame)->payload.size());
      }
    }
    const std::vector<std::pair<FrameType, size_t>> want = {
        {FrameType::kStdout, 5}, {FrameType::kReply, 0}, {FrameType::kStderr, kMaxPayloadBytes}};
    EXPECT_EQ(got, want) << "in steps of " << step;
    EXPECT_FALSE(decoder.HasPartialFrame());
  }
}

TEST(FrameDecoderTest, AWrongHeaderIsJudgedBeforeItsPayloadComes) {
  const struct {
    const char* name;
    std::string header;
  } cases[] = {
      {"length above the limit", Header(0x81, 0, kProtocolVersion, 0, kMaxPayloadBytes + 1)},
      {"length of 4 GiB", Header(0x81, 0, kProtocolVersion, 0, 0xffffffff)},
      {"another version", Header(0x81, 0, kProtocolVersion + 1, 0, 0)},
      {"reserved byte", Header(0x81, 0, kProtocolVersion, 1, 0)},
      {"text", "HTTP/1.1"},
  };
  for (const auto& test : cases) {
    FrameDecoder decoder;
    decoder.Append(test.header);
    const auto frame = decoder.Next();
    ASSERT_FALSE(frame.has_value()) << test.name;
    EXPECT_EQ(frame.error().code(), ErrorCode::kCorrupt) << test.name;
    decoder.Append(EncodeFrame(FrameType::kReply, "{}"));
    EXPECT_FALSE(decoder.Next().has_value()) << test.name << ": a violation is final";
    EXPECT_EQ(decoder.buffered_bytes(), 0U);
  }
}

TEST(FrameDecoderTest, AnUnfinishedFrameIsSeen) {
  FrameDecoder decoder;
  EXPECT_FALSE(decoder.HasPartialFrame());
  decoder.Append(EncodeFrame(FrameType::kReply, "abc").substr(0, 9));
  EXPECT_FALSE(decoder.Next()->has_value());
  EXPECT_TRUE(decoder.HasPartialFrame());
}

template <typename T>
T RoundTrip(const std::string& wire, Result<T> (*decode)(std::string_view), FrameType type) {
  FrameDecoder decoder;
  decoder.Append(wire);
  const auto frame = decoder.Next();
  EXPECT_TRUE(frame && *frame);
  EXPECT_EQ((*frame)->type, type);
  return decode((*frame)->payload).value();
}

TEST(StreamFramesTest, ComeBackAsTheyWentIn) {
  const auto size = RoundTrip(EncodeResize({300, 65535}), DecodeResize, FrameType::kResize);
  EXPECT_EQ(size.rows, 300);
  EXPECT_EQ(size.columns, 65535);
  EXPECT_EQ(RoundTrip(EncodeSignal(15), DecodeSignal, FrameType::kSignal), 15);
  const auto grant =
      RoundTrip(EncodeWindow({FrameType::kStderr, 70000}), DecodeWindow, FrameType::kWindow);
  EXPECT_EQ(grant.stream, FrameType::kStderr);
  EXPECT_EQ(grant.bytes, 70000U);
  const auto exit = RoundTrip(EncodeExit({0, 9}), DecodeExit, FrameType::kExit);
  EXPECT_EQ(exit.ShellCode(), 137);
  EXPECT_EQ((ExitStatus{3, 0}.ShellCode()), 3);
}

TEST(StreamFramesTest, WrongPayloadsAreRefused) {
  EXPECT_FALSE(DecodeResize("abc"));
  EXPECT_FALSE(DecodeResize("abcde"));
  EXPECT_FALSE(DecodeSignal(std::string(1, '\0')));
  EXPECT_FALSE(DecodeSignal("\x41"));
  EXPECT_FALSE(DecodeSignal(""));
  EXPECT_FALSE(DecodeWindow(std::string("\x01\0\0\0\x01\0\0\0", 8)));
  EXPECT_FALSE(DecodeWindow("\x81"));
  EXPECT_FALSE(DecodeExit(std::string("\0\1\0\0\0\0\0\0", 8)));
  EXPECT_FALSE(DecodeExit(std::string("\1\0\0\0\1\0\0\0", 8)));
}

TEST(WindowTest, NoMoreIsTakenThanWasGranted) {
  Window window;
  EXPECT_TRUE(window.Take(kInitialWindow));
  EXPECT_FALSE(window.Take(1));
  EXPECT_TRUE(window.Grant(10));
  EXPECT_FALSE(window.Take(11));
  EXPECT_TRUE(window.Take(10));
}

TEST(WindowTest, GrantsAreBounded) {
  Window window;
  EXPECT_FALSE(window.Grant(kMaxWindow));
  EXPECT_FALSE(window.Grant(0xffffffff));
  EXPECT_TRUE(window.Grant(kMaxWindow - kInitialWindow));
  EXPECT_FALSE(window.Grant(1));
}

}  // namespace
}  // namespace dormouse::guest
