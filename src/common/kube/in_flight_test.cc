#include "src/common/kube/in_flight.h"

#include <gtest/gtest.h>

#include <thread>

namespace dormouse::kube {
namespace {

using namespace std::chrono_literals;

TEST(InFlightTest, AnEndWaitsForTheLastCopyOfEachTicket) {
  InFlight in_flight;
  EXPECT_TRUE(in_flight.WaitUntilNone(0ms));
  InFlight::Ticket first = in_flight.Enter();
  InFlight::Ticket copy = first;
  InFlight::Ticket second = in_flight.Enter();
  first.reset();
  second.reset();
  EXPECT_FALSE(in_flight.WaitUntilNone(0ms));
  const std::jthread other([&copy] { copy.reset(); });
  EXPECT_TRUE(in_flight.WaitUntilNone(20s));
}

TEST(InFlightTest, ATicketMayBeTheLastThingLeft) {
  InFlight::Ticket ticket;
  {
    InFlight in_flight;
    ticket = in_flight.Enter();
    EXPECT_FALSE(in_flight.WaitUntilNone(0ms));
  }
  ticket.reset();
}

}  // namespace
}  // namespace dormouse::kube
