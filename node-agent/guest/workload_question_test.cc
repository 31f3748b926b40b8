// The waiting question, turned by hand: its clock is ours, and so is the guest.
#include "node-agent/guest/workload_question.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <functional>

#include "guest-agent/server/server.h"
#include "node-agent/guest/guest_client.h"
#include "node-agent/host/test_support.h"
#include "src/common/guest/messages.h"
#include "tests/fakes/vsock_front.h"

namespace dormouse {
namespace {

using guest::EncodeFrame;
using guest::FrameType;
using std::chrono::milliseconds;
using std::chrono::seconds;

const std::string kLineOfVmm = "OK 5\n";

std::string Running() {
  guest::WorkloadStatus status;
  status.state = guest::WorkloadState::kRunning;
  status.id = "w";
  return kLineOfVmm + guest::EncodeReply(status);
}
std::string Exited() {
  guest::WorkloadStatus status;
  status.state = guest::WorkloadState::kExited;
  return kLineOfVmm + guest::EncodeReply(status);
}

class WorkloadQuestionTest : public testing::Test {
 protected:
  void Listen() {
    ASSERT_OK(RemoveFile(path_));
    listener_ = ListenUnix(path_).value();
  }
  // Whether a connection waits, which then is the guest's to answer.
  bool Asked() {
    UniqueFd next(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!next) return false;
    peer_ = std::move(next);
    ++asked_;
    return true;
  }
  std::string Heard() {
    char bytes[512];
    const ssize_t got = ::recv(peer_.get(), bytes, sizeof(bytes), 0);
    return {bytes, got > 0 ? static_cast<size_t>(got) : 0};
  }
  void Say(std::string_view bytes) {
    EXPECT_EQ(::send(peer_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  bool HungUp() {
    char byte = 0;
    while (::recv(peer_.get(), &byte, 1, 0) == 1) {
    }
    return errno != EAGAIN;
  }

  void Ask() { ASSERT_TRUE(question_.Ask(host::OwnSocket(path_), now_)); }
  // What an event loop does; true: the sandbox is to be looked at.
  bool Turn() {
    if (question_.OnDue(now_)) return true;
    pollfd ready{question_.fd(), POLLIN, 0};
    while (ready.fd >= 0 && ::poll(&ready, 1, 0) > 0) {
      ++reads_;
      if (question_.OnReadable(now_)) return true;
      ready.fd = question_.fd();
    }
    return false;
  }
  // Asks, and lets the guest say so much to it.
  bool TurnThatHears(std::string_view answer) {
    Ask();
    EXPECT_FALSE(Turn());
    if (!Asked()) return false;
    Say(answer);
    return Turn();
  }

  const host::ScratchDirectory directory_;
  const std::string path_ = directory_ / "vsock";
  UniqueFd listener_;
  UniqueFd peer_;
  WorkloadQuestion question_;
  MonotonicTime now_{std::chrono::hours(1)};
  int asked_ = 0;
  int reads_ = 0;
};

TEST_F(WorkloadQuestionTest, AsksOnceAndWaitsForTheEnd) {
  Listen();
  Ask();
  EXPECT_FALSE(Turn());
  ASSERT_TRUE(Asked());
  EXPECT_EQ(Heard(), "CONNECT 1024\n" + guest::Encode(guest::WorkloadStatusRequest{60'000}));
  for (int second = 0; second < 60; ++second) {
    now_ += seconds(1);
    Ask();
    EXPECT_FALSE(Turn());
  }
  EXPECT_EQ(Heard(), "") << "an idle guest is asked nothing else";
  EXPECT_FALSE(Asked());
  Say(Exited());
  EXPECT_TRUE(Turn());
  EXPECT_EQ(question_.fd(), -1);
  EXPECT_FALSE(question_.due()) << "who looks decides whether it is asked again";
}

TEST_F(WorkloadQuestionTest, AnAnswerThatComesInPiecesIsRead) {
  Listen();
  Ask();
  EXPECT_FALSE(Turn());
  ASSERT_TRUE(Asked());
  const std::string answer = Exited();
  for (size_t i = 0; i + 1 < answer.size(); ++i) {
    Say(answer.substr(i, 1));
    EXPECT_FALSE(Turn()) << i;
  }
  Say(answer.substr(answer.size() - 1));
  EXPECT_TRUE(Turn());
}

TEST_F(WorkloadQuestionTest, OneThatRunsOnIsAskedAgainAtOnceAndNobodyLooks) {
  Listen();
  Ask();
  EXPECT_FALSE(Turn());
  for (int minute = 0; minute < 3; ++minute) {
    ASSERT_TRUE(Asked()) << minute;
    now_ += seconds(60);
    Say(Running());
    EXPECT_FALSE(Turn());
    EXPECT_FALSE(Turn());
  }
  EXPECT_TRUE(Asked());
}

TEST_F(WorkloadQuestionTest, WhatIsNoAnswerOrTheEndOfOneIsLookedAt) {
  Listen();
  const std::string cases[] = {
      Exited(),
      kLineOfVmm + guest::EncodeReply(guest::WorkloadStatus{}),
      kLineOfVmm + EncodeFrame(FrameType::kReply, "]"),
      kLineOfVmm + EncodeFrame(FrameType::kReply, R"({"state":"asleep"})"),
      kLineOfVmm + EncodeFrame(FrameType::kReply, std::string(4000, '[')),
      kLineOfVmm + EncodeFrame(FrameType::kReply, "{}", guest::kFlagEnd),
      kLineOfVmm + EncodeFrame(FrameType::kStdout, "x"),
      kLineOfVmm + std::string("\x40\0\x01\0\x01\0\x01\0", 8),  // 64 KiB + 1
      kLineOfVmm + std::string(1000, '\xff'),
      "HTTP/1.1 200 OK\r\n",
      "OK computer\n",
      std::string(100, 'O'),
      std::string(2 * 4096, '\xff'),
      kLineOfVmm + EncodeFrame(FrameType::kReply, std::string(60'000, ' ')).substr(0, 8'000),
      kLineOfVmm + guest::EncodeError(Error(ErrorCode::kUnavailable, "not now")),
  };
  for (const std::string& answer : cases) {
    SCOPED_TRACE(answer.substr(0, 60));
    EXPECT_TRUE(TurnThatHears(answer));
    EXPECT_EQ(question_.fd(), -1);
    EXPECT_TRUE(HungUp());
    now_ += seconds(30);
  }
  EXPECT_EQ(asked_, static_cast<int>(std::size(cases)));
}

TEST_F(WorkloadQuestionTest, AConnectionThatBreaksOrCannotBeMadeIsLookedAt) {
  Ask();
  EXPECT_TRUE(Turn()) << "nobody listens there";
  now_ += seconds(30);
  Listen();
  Ask();
  EXPECT_FALSE(Turn());
  ASSERT_TRUE(Asked());
  Say(kLineOfVmm + guest::EncodeReply(guest::WorkloadStatus{}).substr(0, 9));
  EXPECT_FALSE(Turn()) << "half a frame";
  peer_.Reset();
  EXPECT_TRUE(Turn());
}

TEST_F(WorkloadQuestionTest, HalfAFrameAndSilenceAreWaitedForNoLongerThanTheLimit) {
  Listen();
  Ask();
  EXPECT_FALSE(Turn());
  ASSERT_TRUE(Asked());
  Say(Running().substr(0, 12));
  EXPECT_FALSE(Turn());
  now_ += WorkloadQuestion::kLimit - milliseconds(1);
  EXPECT_FALSE(Turn());
  now_ += milliseconds(1);
  EXPECT_TRUE(Turn());
  EXPECT_TRUE(HungUp());
}

// How often a guest is asked, and the sandbox looked at, in an hour of which each second is turned
// ten times and every look asks again.
template <typename Guest>
void ExpectBounded(const std::function<bool()>& turn, MonotonicTime* now, const Guest& guest,
                   int* looks) {
  for (int tenth = 0; tenth < 36'000; ++tenth) {
    for (int again = 0; again < 3; ++again) {
      *looks += turn() ? 1 : 0;
      guest();
    }
    *now += milliseconds(100);
  }
}

TEST_F(WorkloadQuestionTest, AGuestThatAlwaysAnswersAtOnceIsAskedEverMoreSeldom) {
  Listen();
  int looks = 0;
  Ask();
  ExpectBounded([this] { return Turn(); }, &now_,
                [this] {
                  if (Asked()) Say(Running());
                },
                &looks);
  EXPECT_EQ(looks, 0);
  EXPECT_GT(asked_, 115);
  EXPECT_LT(asked_, 130);
  EXPECT_LT(reads_, 130);
}

TEST_F(WorkloadQuestionTest, AGuestThatAlwaysHangsUpIsLookedAtEverMoreSeldom) {
  Listen();
  int looks = 0;
  ExpectBounded(
      [this] {
        Ask();
        return Turn();
      },
      &now_,
      [this] {
        if (Asked()) peer_.Reset();
      },
      &looks);
  EXPECT_GT(looks, 115);
  EXPECT_LT(looks, 130);
}

TEST_F(WorkloadQuestionTest, OneThatLastedEndsTheHoldingBack) {
  Listen();
  for (int i = 0; i < 6; ++i) {
    EXPECT_TRUE(TurnThatHears(Exited()));
    now_ += seconds(30);
  }
  Ask();
  EXPECT_FALSE(Turn());
  ASSERT_TRUE(Asked());
  now_ += seconds(60);
  Say(Running());
  EXPECT_FALSE(Turn());
  EXPECT_FALSE(Turn());
  ASSERT_TRUE(Asked());
  peer_.Reset();
  EXPECT_TRUE(Turn());
  now_ += WorkloadQuestion::kFirstPause;
  Ask();
  EXPECT_FALSE(Turn());
  EXPECT_TRUE(Asked());
}

TEST_F(WorkloadQuestionTest, ADroppedQuestionHoldsNothingAndIsNotAskedTwiceInASecond) {
  Listen();
  Ask();
  EXPECT_FALSE(Turn());
  ASSERT_TRUE(Asked());
  question_.Drop();
  EXPECT_EQ(question_.fd(), -1);
  EXPECT_FALSE(question_.due());
  EXPECT_TRUE(HungUp());
  now_ += seconds(3600);
  EXPECT_FALSE(Turn());
  EXPECT_FALSE(Asked());
  Ask();
  EXPECT_FALSE(Turn());
  EXPECT_TRUE(Asked());
  question_.Drop();
  Ask();
  EXPECT_FALSE(Turn());
  EXPECT_FALSE(Asked());
  now_ += seconds(1);
  EXPECT_FALSE(Turn());
  EXPECT_TRUE(Asked());
}

TEST_F(WorkloadQuestionTest, AGuestThatRefusesIsNotAskedAgain) {
  Listen();
  EXPECT_TRUE(
      TurnThatHears(kLineOfVmm + guest::EncodeError(Error(ErrorCode::kUnsupported, "request 4"))));
  now_ += seconds(3600);
  EXPECT_EQ(question_.Ask(host::OwnSocket(path_), now_).error().code(), ErrorCode::kUnsupported);
  EXPECT_FALSE(Turn());
  EXPECT_FALSE(Asked());
}

TEST_F(WorkloadQuestionTest, TheGuestsOwnAgentAnswersWhenTheWorkloadEnds) {
  guest::NoMachine machine;
  const fakes::GuestBehindVsock guest(path_, machine);
  const GuestClient client(host::OwnSocket(path_));
  guest::StartWorkloadRequest workload;
  workload.id = "w";
  workload.process.argv = {"/bin/sleep", "1000"};
  EXPECT_TRUE(client.StartWorkload(workload, seconds(10)));
  Ask();
  EXPECT_FALSE(question_.OnDue(now_));  // not a whole turn: the server may have answered by then
  pollfd ready{question_.fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&ready, 1, 10'000), 1) << "the line that says it is connected";
  EXPECT_FALSE(Turn());
  EXPECT_EQ(::poll(&ready, 1, 0), 0) << "it runs, and that is not told";
  EXPECT_TRUE(client.StopWorkload(seconds(10), seconds(10)));
  EXPECT_EQ(::poll(&ready, 1, 10'000), 1);
  EXPECT_TRUE(Turn());
}

}  // namespace
}  // namespace dormouse
