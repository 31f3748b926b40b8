#include "node-agent/node/node_status.h"

#include <gtest/gtest.h>

#include "src/common/api/sandbox.h"

namespace dormouse {
namespace {

constexpr int64_t kGiB = 1LL << 30;

NodeFacts Facts() {
  NodeFacts facts;
  facts.cpus = 4;
  facts.memory_bytes = 8 * kGiB;
  facts.kvm = true;
  facts.kernel_version = "6.1.0";
  return facts;
}

NodeObservation Seen() {
  NodeObservation seen;
  seen.hypervisor = vmm::VmmVersion{53, 0, "v53.0"};
  seen.space = {100ULL << 30, 60ULL << 30};
  return seen;
}

SandboxSummary Running(int vcpus, int64_t memory, int64_t disk) {
  SandboxSummary sandbox;
  sandbox.running = true;
  sandbox.phase = api::phase::kRunning;
  sandbox.vcpus = vcpus;
  sandbox.memory_bytes = memory;
  sandbox.disk_bytes = 5 * kGiB;
  sandbox.disk_allocated_bytes = disk;
  return sandbox;
}

api::SandboxNodeStatus Compute(const NodeObservation& seen, const api::Conditions& before = {},
                               WallTime now = WallTime{std::chrono::seconds(1000)}) {
  return ComputeNodeStatus(Facts(), {}, "", seen, before, now);
}

TEST(NodeStatusTest, RunningSandboxesAreCountedWithWhatTheyHold) {
  NodeObservation seen = Seen();
  SandboxSummary sleeping = Running(8, 16 * kGiB, kGiB);
  sleeping.running = false;
  sleeping.phase = api::phase::kSuspended;
  SandboxSummary failed = sleeping;
  failed.phase = api::phase::kFailed;
  seen.sandboxes = {Running(1, kGiB, kGiB), Running(2, kGiB / 2, kGiB), sleeping, failed};
  const auto status = Compute(seen);
  EXPECT_EQ(status.allocated.vcpus, 3);
  EXPECT_EQ(status.allocated.memory_bytes, kGiB + kGiB / 2);
  EXPECT_EQ(status.allocated.disk_bytes, 20 * kGiB) << "whole disks, of those that sleep, too";
  EXPECT_EQ(status.allocated.running, 2);
  EXPECT_EQ(status.allocated.sleeping, 1);
}

TEST(NodeStatusTest, ANetworkThatCannotBePutRightIsToldAndKeepsNewSandboxesAway) {
  NodeObservation seen = Seen();
  EXPECT_TRUE(api::IsTrue(Compute(seen).conditions, api::condition::kNetworkReady));
  seen.network.broken = Error(ErrorCode::kInternal, "nft: no memory");
  const auto status = Compute(seen);
  const auto* network = api::FindCondition(status.conditions, api::condition::kNetworkReady);
  ASSERT_NE(network, nullptr);
  EXPECT_EQ(network->status, api::ConditionStatus::kFalse);
  EXPECT_EQ(network->reason, "HostError");
  EXPECT_FALSE(api::IsTrue(status.conditions, api::condition::kReady));
}

TEST(NodeStatusTest, WhatWasPutRightOfTheNetworkIsToldForTenMinutes) {
  NodeObservation seen = Seen();
  seen.network.repaired = "table inet dormouse";
  seen.network.repaired_at = WallTime{std::chrono::seconds(1000)};
  seen.network.repairs = 2;
  const auto told = [&](int at) {
    const auto status = Compute(seen, {}, WallTime{std::chrono::seconds(at)});
    EXPECT_TRUE(api::IsTrue(status.conditions, api::condition::kReady));
    return *api::FindCondition(status.conditions, api::condition::kNetworkReady);
  };
  EXPECT_EQ(told(1001).reason, "RulesRepaired");
  EXPECT_EQ(told(1001).status, api::ConditionStatus::kTrue);
  EXPECT_NE(told(1001).message.find("table inet dormouse"), std::string::npos);
  EXPECT_EQ(told(1700).reason, "Ready");
}

TEST(NodeStatusTest, CapacityLeavesTheReserve) {
  const auto status = Compute(Seen());
  EXPECT_EQ(status.capacity.memory_bytes, 8 * kGiB - (512LL << 20));
  EXPECT_EQ(status.capacity.vcpus, 32);
  NodeAllowance tight;
  tight.reserve_cpus = 9;
  tight.reserve_memory_bytes = 20 * kGiB;
  tight.reserve_disk_bytes = 200ULL << 30;
  const auto none = ComputeNodeStatus(Facts(), tight, "", Seen(), {}, WallTime{});
  EXPECT_EQ(none.capacity.vcpus, 0);
  EXPECT_EQ(none.capacity.memory_bytes, 0);
  EXPECT_EQ(none.capacity.disk_bytes, 0);
}

TEST(NodeStatusTest, DiskThatOthersUseIsNotOffered) {
  // 40 GiB are used, 10 by sandboxes: 30 are others', rounded to a step of a hundredth; 2 are kept.
  NodeObservation seen = Seen();
  seen.sandboxes = {Running(1, kGiB, 10 * kGiB)};
  NodeAllowance allowance;
  allowance.disk_overcommit = 1;
  const auto plain = ComputeNodeStatus(Facts(), allowance, "", seen, {}, WallTime{});
  EXPECT_LE(plain.capacity.disk_bytes, 68 * kGiB);
  EXPECT_GT(plain.capacity.disk_bytes, 66 * kGiB);
  allowance.disk_overcommit = 3;
  const auto thrice = ComputeNodeStatus(Facts(), allowance, "", seen, {}, WallTime{});
  EXPECT_EQ(thrice.capacity.disk_bytes, 3 * plain.capacity.disk_bytes);
}

TEST(NodeStatusTest, AFewMegabytesMoreChangeNothing) {
  NodeObservation seen = Seen();
  seen.sandboxes = {Running(1, kGiB, 10 * kGiB + 1)};
  const auto before = Compute(seen);
  seen.sandboxes[0].disk_allocated_bytes += 5 << 20;
  seen.space.available_bytes -= 5 << 20;
  EXPECT_EQ(Compute(seen, before.conditions), before);
  seen.space.available_bytes -= 3ULL << 30;  // others'
  const auto after = Compute(seen, before.conditions);
  EXPECT_NE(after, before);
  EXPECT_TRUE(DifferOnlyInDisk(after, before));
  seen.images = {{"debian-12", "", 1}};
  EXPECT_FALSE(DifferOnlyInDisk(Compute(seen, before.conditions), before));
}

TEST(NodeStatusTest, WithoutAHypervisorTheNodeIsNotReadyAndSaysWhy) {
  NodeObservation seen = Seen();
  seen.hypervisor =
      Fail(ErrorCode::kUnsupported, "cloud-hypervisor v48.0 is not supported, v53.0 is");
  const auto status = Compute(seen);
  EXPECT_FALSE(api::IsTrue(status.conditions, "HypervisorReady"));
  const api::Condition* ready = api::FindCondition(status.conditions, "Ready");
  ASSERT_NE(ready, nullptr);
  EXPECT_EQ(ready->status, api::ConditionStatus::kFalse);
  EXPECT_EQ(ready->reason, "HypervisorUnsupported");
  EXPECT_NE(ready->message.find("v48.0"), std::string::npos);
}

TEST(NodeStatusTest, WithoutKvmNoHypervisorWillDo) {
  NodeFacts facts = Facts();
  facts.kvm = false;
  EXPECT_FALSE(
      api::IsTrue(ComputeNodeStatus(facts, {}, "", Seen(), {}, {}).conditions, "HypervisorReady"));
}

TEST(NodeStatusTest, ShortDiskIsPressureAndNotUnreadiness) {
  NodeObservation seen = Seen();
  seen.disk = NodeDisk::kPauseGuests;
  const auto status = Compute(seen);
  EXPECT_TRUE(api::IsTrue(status.conditions, "DiskPressure"));
  EXPECT_EQ(api::FindCondition(status.conditions, "DiskPressure")->reason, "NodeDiskFull");
  EXPECT_TRUE(api::IsTrue(status.conditions, "Ready"));
}

TEST(NodeStatusTest, ConditionsKeepTheirTimeWhileTheyHold) {
  const WallTime first{std::chrono::milliseconds(1'000'500)};
  const WallTime later = first + std::chrono::hours(1);
  const auto before = Compute(Seen(), {}, first);
  EXPECT_EQ(before.conditions[0].last_transition, WallTime{std::chrono::seconds(1000)})
      << "the API has no fractions";
  NodeObservation seen = Seen();
  EXPECT_EQ(Compute(seen, before.conditions, later), before);
  seen.hypervisor = Fail(ErrorCode::kUnsupported, "gone");
  const auto after = Compute(seen, before.conditions, later);
  EXPECT_GT(api::FindCondition(after.conditions, "Ready")->last_transition, first);
  EXPECT_EQ(*api::FindCondition(after.conditions, "DiskPressure"),
            *api::FindCondition(before.conditions, "DiskPressure"));
}

TEST(NodeStatusTest, OrderOfImagesIsNoChange) {
  NodeObservation seen = Seen();
  seen.images = {{"b", "", 1}, {"a", "", 2}};
  const auto status = Compute(seen);
  std::swap(seen.images[0], seen.images[1]);
  EXPECT_EQ(Compute(seen, status.conditions), status);
}

}  // namespace
}  // namespace dormouse
