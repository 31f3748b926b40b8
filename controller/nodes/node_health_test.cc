#include "controller/nodes/node_health.h"

#include <gtest/gtest.h>

namespace dormouse::controller {
namespace {

using namespace std::chrono_literals;

class NodeHealthTest : public testing::Test {
 protected:
  void Renew(std::chrono::nanoseconds renewed_ago = 0s, std::chrono::seconds duration = 40s) {
    kube::LeaseRecord lease;
    lease.ref.resource_version = kube::ResourceVersion(std::to_string(++version_));
    lease.duration = duration;
    lease.renewed = clock_.WallNow() - std::chrono::duration_cast<WallTime::duration>(renewed_ago);
    last_ = lease;
    health_.Observe("n", lease);
  }
  NodeState State() { return health_.Of("n").state; }

  FakeClock clock_;
  NodeHealth health_{clock_, 40s};
  kube::LeaseRecord last_;
  int version_ = 0;
};

TEST_F(NodeHealthTest, ANodeLivesWhileItRenews) {
  Renew();
  EXPECT_EQ(State(), NodeState::kAlive);
  clock_.Advance(39s);
  EXPECT_EQ(State(), NodeState::kAlive);
  EXPECT_EQ(health_.Of("n").ends_in, 1s);
  Renew();
  clock_.Advance(39s);
  EXPECT_EQ(State(), NodeState::kAlive);
  clock_.Advance(1s);
  EXPECT_EQ(State(), NodeState::kLost);
  Renew();
  EXPECT_EQ(State(), NodeState::kAlive);
}

TEST_F(NodeHealthTest, SeeingTheSameLeaseAgainRenewsNothing) {
  Renew();
  clock_.Advance(30s);
  health_.Observe("n", last_);
  clock_.Advance(10s);
  EXPECT_EQ(State(), NodeState::kLost);
}

TEST_F(NodeHealthTest, AStaleLeaseAtFirstSightIsNeitherTrustedNorCondemned) {
  Renew(1h);
  EXPECT_EQ(State(), NodeState::kUnknown);
  clock_.Advance(40s);
  EXPECT_EQ(State(), NodeState::kLost);
}

TEST_F(NodeHealthTest, AWrongClockCostsOneRenewal) {
  Renew(1h);
  clock_.Advance(10s);
  Renew(1h);
  EXPECT_EQ(State(), NodeState::kAlive) << "it changed before our eyes";
}

TEST_F(NodeHealthTest, ANodeWithoutALeaseIsLostInTheEnd) {
  EXPECT_EQ(State(), NodeState::kUnknown);
  clock_.Advance(40s);
  EXPECT_EQ(State(), NodeState::kLost);
  Renew();
  EXPECT_EQ(State(), NodeState::kAlive);
}

TEST_F(NodeHealthTest, ALeaseSaysHowLongItIsGood) {
  Renew(0s, 5s);
  clock_.Advance(5s);
  EXPECT_EQ(State(), NodeState::kLost);
}

TEST_F(NodeHealthTest, NamesOfLeases) {
  EXPECT_EQ(NodeLeaseName("n1"), "dormouse-node-n1");
  EXPECT_EQ(NodeOfLease("dormouse-node-n1"), "n1");
  EXPECT_EQ(NodeOfLease("dormouse-controller"), "");
}

}  // namespace
}  // namespace dormouse::controller
