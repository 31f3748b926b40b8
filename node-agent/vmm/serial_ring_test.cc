#include "node-agent/vmm/serial_ring.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "node-agent/host/test_support.h"
#include "src/common/base/files.h"

namespace dormouse::vmm {
namespace {

TEST(SerialRingTest, TheLastBytesAreKept) {
  SerialRing ring(8);
  ring.Append("abc");
  EXPECT_EQ(ring.Contents(), "abc");
  ring.Append("defghij");
  EXPECT_EQ(ring.Contents(), "cdefghij");
  ring.Append("0123456789");
  EXPECT_EQ(ring.Contents(), "23456789");
  ring.Append("x");
  EXPECT_EQ(ring.Contents(), "3456789x");
}

TEST(SerialRingTest, LastLinesAreWhatAPersonWouldRead) {
  SerialRing ring;
  ring.Append("one\r\n\r\n\x1b[31mtwo\x07\r\n  \r\nthree");
  EXPECT_EQ(ring.LastLines(2), ".[31mtwo.\nthree");
  EXPECT_EQ(ring.LastLines(10), "one\n.[31mtwo.\nthree");
  EXPECT_EQ(ring.LastLines(0), "");
  EXPECT_EQ(SerialRing().LastLines(5), "");
  SerialRing binary;
  binary.Append(std::string("\xff\xfe", 2) + std::string(1000, 'y'));
  EXPECT_EQ(binary.LastLines(1).size(), 200u);
}

class SerialReaderTest : public ::testing::Test {
 protected:
  void SetUp() override { listener_ = host::WaitingListener(socket()); }
  [[nodiscard]] std::string socket() const { return directory_ / "serial.sock"; }
  [[nodiscard]] std::string log() const { return directory_ / "serial.log"; }
  UniqueFd Accept() {
    return UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  }

  FakeClock clock_;
  const host::ScratchDirectory directory_;
  UniqueFd listener_;
};

TEST_F(SerialReaderTest, WhatTheGuestPrintsIsInTheRingAndInTheFile) {
  auto reader = SerialReader::Connect(host::OwnSocket(socket()), log(), {}, clock_);
  ASSERT_TRUE(reader) << reader.error().message();
  UniqueFd guest = Accept();
  ASSERT_EQ(::write(guest.get(), "hello\n", 6), 6);
  EXPECT_EQ(reader->OnReadable(), SerialReader::State::kIdle);
  EXPECT_EQ(reader->ring().LastLines(1), "hello");
  EXPECT_EQ(*ReadFile(log(), 100), "hello\n");
  guest.Reset();
  EXPECT_EQ(reader->OnReadable(), SerialReader::State::kClosed);
}

TEST_F(SerialReaderTest, TheLastLinesOutliveTheVm) {
  auto file = CappedFile::Open(log(), 1024);
  ASSERT_TRUE(file);
  ASSERT_TRUE(file->Append("one\ntwo\nKernel panic\n"));
  EXPECT_EQ(LastLinesOfLog(log(), ::geteuid(), 2), "two\nKernel panic");
  EXPECT_EQ(LastLinesOfLog(log() + ".none", ::geteuid(), 2), "");
}

TEST_F(SerialReaderTest, AGuestThatWritesForEverIsReadAtItsRateAndNoMore) {
  SerialOptions options;
  options.bytes_per_second = 1000;
  options.burst_bytes = 2000;
  options.file_bytes = 1500;
  auto reader = SerialReader::Connect(host::OwnSocket(socket()), log(), options, clock_);
  ASSERT_TRUE(reader);
  UniqueFd guest = Accept();
  const std::string flood(100'000, 'f');
  ASSERT_GT(::write(guest.get(), flood.data(), flood.size()), 50'000);

  size_t rounds = 0;
  ASSERT_EQ(reader->OnReadable(), SerialReader::State::kThrottled);
  ASSERT_TRUE(reader->throttled_until());
  for (; rounds < 100; ++rounds) {
    clock_.Advance(*reader->throttled_until() - clock_.Now());
    ASSERT_EQ(reader->OnReadable(), SerialReader::State::kThrottled);
  }
  // 25 s at 1,000 B/s and the burst: of 100 kB, 27 are read.
  uint64_t left = 0;
  char block[4096];
  for (ssize_t got = ::read(reader->fd(), block, sizeof(block)); got > 0;
       got = ::read(reader->fd(), block, sizeof(block))) {
    left += static_cast<uint64_t>(got);
  }
  EXPECT_GE(left, 50'000u - 27'000u);
  EXPECT_LE(std::filesystem::file_size(log()), 1500u);
  EXPECT_LE(std::filesystem::file_size(log() + ".1"), 1500u);
}

TEST_F(SerialReaderTest, ALogThatCannotBeWrittenDoesNotStopTheConsole) {
  auto reader = SerialReader::Connect(host::OwnSocket(socket()), directory_ / "missing/serial.log",
                                      {}, clock_);
  ASSERT_TRUE(reader);
  UniqueFd guest = Accept();
  ASSERT_EQ(::write(guest.get(), "still here\n", 11), 11);
  EXPECT_EQ(reader->OnReadable(), SerialReader::State::kIdle);
  EXPECT_EQ(reader->ring().LastLines(1), "still here");
}

TEST_F(SerialReaderTest, AnAgentThatCameBackAppendsToTheFile) {
  for (const char* text : {"first\n", "second\n"}) {
    auto reader = SerialReader::Connect(host::OwnSocket(socket()), log(), {}, clock_);
    ASSERT_TRUE(reader);
    UniqueFd guest = Accept();
    ASSERT_GT(::write(guest.get(), text, std::strlen(text)), 0);
    (void)reader->OnReadable();
  }
  EXPECT_EQ(*ReadFile(log(), 100), "first\nsecond\n");
}

TEST_F(SerialReaderTest, NobodyThereIsToldAtOnce) {
  EXPECT_EQ(
      SerialReader::Connect(host::OwnSocket(directory_ / "none"), "", {}, clock_).error().code(),
      ErrorCode::kUnavailable);
  listener_.Reset();
  EXPECT_EQ(SerialReader::Connect(host::OwnSocket(socket()), "", {}, clock_).error().code(),
            ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace dormouse::vmm
