#include "node-agent/sandbox/agent.h"

#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "node-agent/sandbox/agent_test_parts.h"
#include "src/common/base/sealed_json.h"

namespace dormouse {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

TEST_F(AgentTest, AFastGuestIsReadyWithOneStatusWrite) {
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(control_plane_.live->status.phase, "Running");
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Ready"));
  EXPECT_EQ(control_plane_.writes.size(), 1u);
  ASSERT_EQ(control_plane_.events.size(), 1u);
  EXPECT_EQ(control_plane_.events[0].substr(0, 15), "Normal Started:");
}

TEST_F(AgentTest, ASlowGuestTakesTwoWritesAndNoMoreHoweverOftenItIsAsked) {
  vm().silent = true;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Reconcile());
    clock_.Advance(100ms);
  }
  EXPECT_EQ(control_plane_.live->status.phase, "Starting");
  vm().silent = false;
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(control_plane_.live->status.phase, "Running");
  EXPECT_EQ(control_plane_.live->status.vm.boot_to_ready, 2000ms);
  EXPECT_EQ(control_plane_.writes.size(), 2u);
}

TEST_F(AgentTest, ARunningSandboxIsNotWrittenAgain) {
  Settle();
  EXPECT_EQ(control_plane_.writes.size(), 1u);
  Put(*control_plane_.live);  // the watch delivers what was written
  Restart();
  Settle();
  EXPECT_EQ(control_plane_.writes.size(), 1u);
}

TEST_F(AgentTest, ARestartedAgentLeavesARunningVmAlone) {
  Settle();
  const int pid = vm().pid;
  machine_.steps.clear();
  Restart();
  Settle();
  EXPECT_EQ(vm().pid, pid);
  EXPECT_TRUE(machine_.steps.empty());
}

const std::vector<std::string> kCreationSteps = {
    "record.save", "disk.store", "record.vmm", "disk.prepare",    "net.prepare", "vmm.prepare",
    "vmm.launch",  "vmm.create", "vmm.boot",   "guest.configure", "guest.start"};

TEST_F(AgentTest, AnAgentThatDiesAroundAnyStepOfCreationConverges) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.workload.command = {"sleep", "1"}; });
  for (const std::string& step : kCreationSteps) {
    for (const char* when : {"before.", "after."}) {
      SCOPED_TRACE(when + step);
      machine_.vms.clear();
      ASSERT_TRUE(RemoveTree(paths_.Sandboxes()));
      Restart();
      ASSERT_TRUE(failpoint::Arm("agent.step." + std::string(when) + step + "=1*error(EIO)"));
      EXPECT_FALSE(Reconcile()) << "the failpoint was not reached";
      failpoint::DisarmAll();
      Restart();
      Settle();
      EXPECT_EQ(vm().workload, FakeMachine::Workload::kRunning);
      EXPECT_EQ(control_plane_.live->status.phase, "Running");
      EXPECT_EQ(machine_.vms.size(), 1u);
    }
  }
}

// The policy that the object asks for is the one that the namespace has.
#define EXPECT_EGRESS_IN_FORCE() \
  EXPECT_TRUE(vm().net);         \
  EXPECT_EQ(vm().egress, machine_.EgressRules(control_plane_.live->spec))

void SetEgress(api::Sandbox& sandbox, api::Egress egress) {
  sandbox.spec.network.egress = egress;
  ++sandbox.meta.generation;
}
void Tighten(api::Sandbox& sandbox) {
  SetEgress(sandbox, api::Egress::kNone);
}

TEST_F(AgentTest, AnEgressPolicyIsPutInForceByTheReconcileThatSeesIt) {
  Settle();
  Change(Tighten);
  ASSERT_TRUE(Reconcile());
  EXPECT_EGRESS_IN_FORCE();
}

TEST_F(AgentTest, AnEgressPolicyThatBecomesTheDefaultWhileTheAgentIsAwayIsPutInForce) {
  Change([](api::Sandbox& sandbox) { SetEgress(sandbox, api::Egress::kOpen); });
  Settle();
  EXPECT_EGRESS_IN_FORCE();
  Change([](api::Sandbox& sandbox) { SetEgress(sandbox, api::Egress::kRestricted); });
  Restart();
  ASSERT_TRUE(Reconcile());
  EXPECT_EGRESS_IN_FORCE();
}

TEST_F(AgentTest, AnEgressPolicyIsPutInForceInBackOff) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.restart_policy = api::RestartPolicy::kAlways; });
  Settle();
  for (int i = 0; i < 2; ++i) {  // the first restart waits for nothing
    machine_.Crash(kUid);
    agent_->OnMachineChanged(kUid.text());
    ASSERT_TRUE(Reconcile());
    if (i == 0) Settle();
  }
  ASSERT_EQ(ReadyReason(), "VMMCrashed");
  ASSERT_EQ(vm().pid, 0);
  Change(Tighten);
  ASSERT_TRUE(Reconcile());
  ASSERT_EQ(vm().pid, 0) << "it waits for its restart still";
  EXPECT_EGRESS_IN_FORCE();
}

TEST_F(AgentTest, AnEgressPolicyThatChangedInSleepIsInForceWhenItWakes) {
  Settle();
  Wish(api::OperatingMode::kSuspended);
  Settle();
  ASSERT_EQ(Phase(), "Suspended");
  Change(Tighten);
  Settle();
  Wish(api::OperatingMode::kRunning);
  Settle();
  ASSERT_EQ(Phase(), "Running");
  EXPECT_EGRESS_IN_FORCE();
}

TEST_F(AgentTest, AnEgressPolicyIsPutInForceThoughTheGuestDoesNotAnswer) {
  Settle();
  vm().silent = true;
  Change(Tighten);
  ASSERT_TRUE(Reconcile());
  ASSERT_NE(ReadyReason(), "Ready");
  EXPECT_EGRESS_IN_FORCE();
}

TEST_F(AgentTest, AnEgressPolicyThatSomebodyElseTookAwayIsBackAtTheNextLook) {
  Settle();
  vm().egress = "";
  clock_.Advance(options_.resync);
  ASSERT_TRUE(Reconcile());
  EXPECT_EGRESS_IN_FORCE();
}

TEST_F(AgentTest, AnEgressPolicyThatCannotBePutInForceIsToldAndTriedAgain) {
  Settle();
  Change(Tighten);
  machine_.network_error = Error(ErrorCode::kInternal, "nft: no memory");
  EXPECT_FALSE(Reconcile());
  EXPECT_EQ(ReadyReason(), "HostError");
  machine_.network_error.reset();
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(ReadyReason(), "Ready");
  EXPECT_EGRESS_IN_FORCE();
}

TEST_F(AgentTest, AnAgentThatDiesBetweenAVmmsLaunchAndItsRecordStartsItAnew) {
  ASSERT_TRUE(failpoint::Arm("agent.step.launched.vmm.launch=1*error(EIO)"));
  EXPECT_FALSE(Reconcile());
  failpoint::DisarmAll();
  const int stray = vm().pid;
  ASSERT_NE(stray, 0);
  Restart();
  Settle();
  EXPECT_NE(vm().pid, stray) << "a process that no record names is not trusted";
  EXPECT_EQ(control_plane_.live->status.phase, "Running");
}

TEST_F(AgentTest, AStoreWhoseRecordCannotBeWrittenGoesAndOneThatHasARecordStays) {
  const std::string store = paths_.Store(kUid);
  machine_.meanwhile = [&](Step step) {
    if (step != Step::kMakeStore) return;
    EXPECT_TRUE(MakeDirectories(paths_.Sandbox(kUid)));
    EXPECT_TRUE(WriteFileAtomically(store, "blocks"));
  };
  ASSERT_TRUE(failpoint::Arm("agent.step.before.record.save=1*error(ENOSPC)"));
  EXPECT_FALSE(Reconcile());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid))) << "no record will ever release it";
  Settle();
  EXPECT_EQ(Phase(), "Running");
  EXPECT_TRUE(PathExists(store));

  // As after the node's boot: all is gone but its files.
  vm() = {};
  Restart();
  ASSERT_TRUE(failpoint::Arm("agent.step.before.record.save=1*error(ENOSPC)"));
  EXPECT_FALSE(Reconcile());
  machine_.meanwhile = nullptr;
  EXPECT_TRUE(PathExists(store));
}

TEST_F(AgentTest, DeletingLeavesNothingAndSaysReleasedWithOneWrite) {
  Settle();
  const auto before = control_plane_.writes.size();
  Delete();
  ASSERT_TRUE(Reconcile());
  EXPECT_TRUE(vm().Nothing());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released"));
  EXPECT_EQ(control_plane_.live->status.phase, "Terminating");
  EXPECT_EQ(control_plane_.writes.size(), before + 1);
}

TEST_F(AgentTest, AnAgentThatDiesAroundAnyStepOfDeletionConverges) {
  const api::Sandbox fresh = *control_plane_.live;
  for (const std::string step :
       {"record.save", "vmm.kill", "disk.release", "net.remove", "vmm.remove", "files.remove"}) {
    for (const char* when : {"before.", "after."}) {
      SCOPED_TRACE(when + step);
      Put(fresh);
      Restart();
      Settle();
      ASSERT_NE(vm().pid, 0);
      Delete();
      ASSERT_TRUE(failpoint::Arm("agent.step." + std::string(when) + step + "=1*error(EIO)"));
      EXPECT_FALSE(Reconcile()) << "the failpoint was not reached";
      failpoint::DisarmAll();
      Restart();
      ASSERT_TRUE(Reconcile());
      EXPECT_TRUE(vm().Nothing());
      EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
      EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released"));
    }
  }
}

TEST_F(AgentTest, NothingIsDestroyedWhileTheApiServerIsAway) {
  Settle();
  Delete();
  control_plane_.down = true;
  EXPECT_FALSE(Reconcile());
  EXPECT_NE(vm().pid, 0);
  store_.Remove({{"default", "web"}, kUid.text(), kube::ResourceVersion("2000")});
  EXPECT_FALSE(Reconcile());
  EXPECT_NE(vm().pid, 0);
}

TEST_F(AgentTest, ASandboxThatOnlyLeftTheCacheIsKept) {
  Settle();
  store_.Remove({{"default", "web"}, kUid.text(), kube::ResourceVersion("2000")});
  ASSERT_TRUE(Reconcile());
  EXPECT_NE(vm().pid, 0);
}

TEST_F(AgentTest, AnOrphanIsStoppedAndItsFilesAreKeptForTheRetention) {
  Settle();
  store_.Remove({{"default", "web"}, kUid.text(), kube::ResourceVersion("2000")});
  control_plane_.live.reset();
  ASSERT_TRUE(Reconcile());
  EXPECT_TRUE(vm().Nothing());
  EXPECT_TRUE(PathExists(paths_.Record(kUid)));
  clock_.Advance(options_.orphan_retention);
  ASSERT_TRUE(Reconcile());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
}

TEST_F(AgentTest, NoWriteReachesASuccessorOfTheSameName) {
  Settle();
  const auto writes = control_plane_.writes.size();
  api::Sandbox successor = *control_plane_.live;
  successor.uid = kSuccessor;
  successor.meta.uid = kSuccessor.text();
  control_plane_.live = successor;  // the cache still has the predecessor
  machine_.Crash(kUid);
  agent_->OnMachineChanged(kUid.text());
  (void)Reconcile();
  EXPECT_EQ(control_plane_.writes.size(), writes);
}

TEST_F(AgentTest, ACrashIsTold) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.restart_policy = api::RestartPolicy::kNever; });
  Settle();
  machine_.Crash(kUid);
  agent_->OnMachineChanged(kUid.text());
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(control_plane_.live->status.phase, "Failed");
  EXPECT_EQ(ReadyReason(), "VMMCrashed");
  EXPECT_TRUE(vm().Nothing());
  EXPECT_TRUE(PathExists(paths_.Record(kUid)));
  EXPECT_EQ(control_plane_.events.back().substr(0, 19), "Warning VMMCrashed:");
}

TEST_F(AgentTest, WhatAVmmSaidLastIsToldThoughItIsNoUtf8) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.restart_policy = api::RestartPolicy::kNever; });
  Settle();
  vm().ending = Ending{"VMMCrashed", "it said \xff\xc3( last", false, std::nullopt, {}};
  machine_.Crash(kUid);
  agent_->OnMachineChanged(kUid.text());
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(Phase(), "Failed");
  EXPECT_EQ(ReadyReason(), "VMMCrashed");
  const auto writes = control_plane_.writes.size();
  Settle();
  EXPECT_EQ(control_plane_.writes.size(), writes) << "told once";
  EXPECT_TRUE(agent_->Show({"default", "web"}));
  Put(*control_plane_.live);
  Restart();
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(control_plane_.writes.size(), writes) << "what was told is known again";
}

TEST_F(AgentTest, ACrashedSandboxComesBackByItsRestartPolicy) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.restart_policy = api::RestartPolicy::kAlways; });
  Settle();
  const int pid = vm().pid;
  machine_.Crash(kUid);
  agent_->OnMachineChanged(kUid.text());
  Settle();
  EXPECT_NE(vm().pid, pid);
  EXPECT_EQ(control_plane_.live->status.restart_count, 1);
  EXPECT_EQ(control_plane_.live->status.phase, "Running");
}

TEST_F(AgentTest, AnImageThatThisNodeLacksIsRefusedBeforeAnythingIsMade) {
  machine_.resolve_error = Error(ErrorCode::kNotFound, "no image debian-12");
  ASSERT_TRUE(Reconcile());
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released"));
  EXPECT_EQ(ReadyReason(), "ImageNotFound");
  EXPECT_TRUE(machine_.steps.empty());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
}

TEST_F(AgentTest, WhatTheControllerDidNotFinalizeIsRefusedBeforeAnythingIsMade) {
  Change([](api::Sandbox& sandbox) { sandbox.meta.finalizers.clear(); });
  Settle();
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released")) << "placed anew";
  EXPECT_EQ(ReadyReason(), "NotFinalized");
  EXPECT_TRUE(machine_.steps.empty());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
}

TEST_F(AgentTest, OneThatLosesItsFinalizerRunsOn) {
  Settle();
  Change([](api::Sandbox& sandbox) { sandbox.meta.finalizers.clear(); });
  Settle();
  EXPECT_EQ(ReadyReason(), "Ready");
  EXPECT_NE(vm().pid, 0);
}

TEST_F(AgentTest, AStartThatTheNodesMemoryHasNoRoomForIsRefused) {
  const auto start = [this](const api::SandboxUid& uid, int64_t mib) {
    api::Sandbox other = *control_plane_.live;
    other.meta.name = uid.text().substr(0, 8);
    other.meta.uid = uid.text();
    other.uid = uid;
    other.status = {};
    other.status.node_name = "node-1";
    other.spec.resources = api::Resources{1, mib << 20};
    Put(other);
    return agent_->Reconcile(uid.text());
  };
  options_.memory_bytes = (512 + 256) << 20;
  Restart();
  Settle();
  EXPECT_EQ(ReadyReason(), "Ready");
  ASSERT_TRUE(start(kSuccessor, 512));
  EXPECT_TRUE(api::IsTrue(control_plane_.live->status.conditions, "Released")) << "placed anew";
  EXPECT_EQ(ReadyReason(), "NoCapacity");
  EXPECT_FALSE(PathExists(paths_.Sandbox(kSuccessor)));
  // What was refused holds nothing: a smaller one has the room.
  const auto third = *api::SandboxUid::Parse("3b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a33");
  ASSERT_TRUE(start(third, 256));
  EXPECT_EQ(ReadyReason(), "Ready");
}

TEST_F(AgentTest, OfTwoThatStartAtOnceOnlyOneIsGivenTheLastOfTheMemory) {
  api::Sandbox other = *control_plane_.live;
  other.meta.name = "other";
  other.meta.uid = kSuccessor.text();
  other.uid = kSuccessor;
  options_.memory_bytes = (512 + 256) << 20;
  Restart();
  // The second comes while the first has room, and no record yet.
  bool came = false;
  machine_.on_slot_limit = [&] {
    if (std::exchange(came, true)) return;
    store_.Upsert({other.meta.key(), other.meta.uid, other.meta.resource_version},
                  std::make_shared<api::Sandbox>(other), false);
    ASSERT_EQ(records_->All().size(), 0u);
    const auto first = std::exchange(control_plane_.live, other);
    ASSERT_TRUE(agent_->Reconcile(kSuccessor.text()));
    EXPECT_EQ(ReadyReason(), "NoCapacity");
    control_plane_.live = first;
  };
  Settle();
  EXPECT_TRUE(came);
  EXPECT_EQ(ReadyReason(), "Ready");
  EXPECT_FALSE(PathExists(paths_.Sandbox(kSuccessor)));
}

TEST_F(AgentTest, ASpecThatNoNodeCanMeetFailsAndStays) {
  machine_.resolve_error = Error(ErrorCode::kInvalid, "spec.disk.size is smaller than the image");
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(control_plane_.live->status.phase, "Failed");
  EXPECT_EQ(ReadyReason(), "InvalidSpec");
  EXPECT_FALSE(api::IsTrue(control_plane_.live->status.conditions, "Released"));
}

TEST_F(AgentTest, ASilentGuestEndsWithTheLastOfItsConsoleInTheEvent) {
  Change([](api::Sandbox& sandbox) { sandbox.spec.restart_policy = api::RestartPolicy::kNever; });
  options_.guest_timeout = 5s;
  Restart();
  vm().silent = true;
  Settle();
  EXPECT_EQ(ReadyReason(), "GuestAgentTimeout");
  EXPECT_EQ(control_plane_.live->status.phase, "Failed");
  EXPECT_NE(control_plane_.events.back().find("panic: no init"), std::string::npos);
}

TEST_F(AgentTest, AVmmThatAnswersNothingIsEndedAndItsGuestBootsFromItsDisk) {
  Settle();
  const int pid = vm().pid;
  vm().vmm_silent = true;
  clock_.Advance(options_.resync);
  for (int looks = 0; looks < 2; ++looks) {
    ASSERT_TRUE(Reconcile());
    EXPECT_EQ(ReadyReason(), "VMMHung");
    EXPECT_EQ(Phase(), "Running") << "its guest may go on";
  }
  EXPECT_NE(agent_->Show(control_plane_.live->meta.key()).value().find("\"state\": \"silent\""),
            std::string::npos);
  const auto limit = options_.vmm_timeout + 512s / 64;  // of its RAM
  clock_.Advance(limit - 1s);
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(vm().pid, pid) << "it may answer yet";
  clock_.Advance(1s);
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(vm().pid, 0);
  EXPECT_EQ(control_plane_.events.back().substr(0, 54),
            "Warning VMMHung: the VMM has not answered for 128 s, a");
  Settle();
  EXPECT_NE(vm().pid, pid);
  EXPECT_EQ(Phase(), "Running");
  EXPECT_EQ(ReadyReason(), "Ready");
  EXPECT_EQ(control_plane_.live->status.restart_count, 1) << "whatever its restart policy says";
}

TEST_F(AgentTest, AVmmThatAnswersAgainGoesOn) {
  Settle();
  const int pid = vm().pid;
  for (int times = 0; times < 3; ++times) {
    vm().vmm_silent = true;
    agent_->OnMachineChanged(kUid.text());
    ASSERT_TRUE(Reconcile());
    clock_.Advance(options_.vmm_timeout);
    vm().vmm_silent = false;
    Settle();
    EXPECT_EQ(ReadyReason(), "Ready");
  }
  EXPECT_EQ(vm().pid, pid);
}

TEST_F(AgentTest, AVmmThatDoesNotPauseForAFullDiskIsEnded) {
  Settle();
  const int pid = vm().pid;
  vm().hangs_in_pause = true;
  machine_.disk_state = Machine::DiskState::kFull;
  agent_->TendDisks();
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(vm().pid, 0);
  EXPECT_EQ(ReadyReason(), "VMMHung");
  machine_.disk_state = Machine::DiskState::kFine;
  agent_->TendDisks();
  Settle();
  EXPECT_NE(vm().pid, pid);
  EXPECT_EQ(ReadyReason(), "Ready");
}

TEST_F(AgentTest, AFullNodePausesGuestsAndRefusesNewOnes) {
  Settle();
  machine_.disk_state = Machine::DiskState::kFull;
  agent_->TendDisks();
  ASSERT_TRUE(Reconcile());
  EXPECT_TRUE(vm().paused);
  EXPECT_EQ(ReadyReason(), "NodeDiskFull");
  machine_.disk_state = Machine::DiskState::kFine;
  agent_->TendDisks();
  Settle();
  EXPECT_FALSE(vm().paused);
  EXPECT_EQ(ReadyReason(), "Ready");
}

TEST_F(AgentTest, ACorruptRecordIsReportedAndTheVmLeftRunning) {
  Settle();
  std::ofstream(paths_.Record(kUid), std::ios::trunc) << "{";
  Restart();
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(ReadyReason(), "RecordCorrupt");
  EXPECT_NE(vm().pid, 0);
  EXPECT_TRUE(PathExists(paths_.Quarantine() + "/" + kUid.text() + ".json"));
  Delete();
  ASSERT_TRUE(Reconcile());
  EXPECT_TRUE(vm().Nothing());
  EXPECT_FALSE(PathExists(paths_.Sandbox(kUid)));
}

TEST_F(AgentTest, ARecordOfANewerAgentIsLeftAloneWithItsVmAndSaidSo) {
  Settle();
  Put(*control_plane_.live);
  const int pid = vm().pid;
  const int newer = Record::kVersion + 1;
  const std::string text = SealJson({"record", newer, newer}, {{"as", "never seen"}});
  std::ofstream(paths_.Record(kUid), std::ios::trunc) << text;
  Restart();
  Settle();
  const auto* ready = api::FindCondition(control_plane_.live->status.conditions, "Ready");
  EXPECT_EQ(ready->status, api::ConditionStatus::kUnknown);
  EXPECT_EQ(ready->reason, "AgentTooOld");
  EXPECT_EQ(Phase(), "Running") << "for all that is known";
  EXPECT_EQ(std::count_if(control_plane_.events.begin(), control_plane_.events.end(),
                          [](const auto& each) { return each.starts_with("Warning AgentTooOld"); }),
            1);
  ASSERT_EQ(agent_->List().size(), 1U);
  EXPECT_EQ(agent_->List()[0].name, "web");
  EXPECT_EQ(agent_->List()[0].ready_reason, "AgentTooOld");
  EXPECT_NE(records_->ReserveSlot(kSuccessor, 10).value(), 1U) << "its slot is its own";
  Delete();
  Settle();
  store_.Remove({control_plane_.live->meta.key(), kUid.text(), {}});
  control_plane_.live.reset();
  Settle();
  EXPECT_TRUE(agent_->Sweep(true));
  EXPECT_EQ(vm().pid, pid);
  EXPECT_EQ(ReadFile(paths_.Record(kUid), 4096).value_or(""), text);
  EXPECT_FALSE(PathExists(paths_.Quarantine() + "/" + kUid.text() + ".json"));
}

TEST_F(AgentTest, OnANodeShortOfDiskTheOneThatGrewMostStandsStillAndNamesWhy) {
  Settle();
  const api::Sandbox first = *control_plane_.live;
  api::Sandbox hog = first;
  hog.meta.name = "hog";
  hog.meta.uid = kSuccessor.text();
  hog.uid = kSuccessor;
  hog.status = {};
  hog.status.node_name = "node-1";
  Put(hog);
  for (int i = 0; i < 5; ++i) (void)Reconcile(kSuccessor);
  machine_.usages[kUid] = {0, 100 << 20, 1};
  machine_.usages[kSuccessor] = {0, int64_t{3} << 30, 50};
  machine_.disk_state = Machine::DiskState::kFull;
  machine_.disk_available = options_.capacity.pause_bytes - 1;
  const auto look = [this] {
    agent_->TendDisks();
    (void)Reconcile(kSuccessor);
    (void)Reconcile(kUid);
  };
  look();
  EXPECT_TRUE(machine_.vms[kSuccessor].paused);
  EXPECT_FALSE(vm().paused) << "has not grown";
  EXPECT_EQ(agent_->StandStill(), std::vector<std::string>{"default/hog"});
  EXPECT_EQ(ReadyReason(), "NodeDiskFull");
  const auto* ready = api::FindCondition(control_plane_.live->status.conditions, "Ready");
  EXPECT_EQ(ready->message,
            "paused until the node has disk space again: its disk takes 3072 MiB of the node's, "
            "where an even share is 1841 MiB");
  machine_.disk_available = options_.capacity.last_resort_bytes - 1;
  look();
  EXPECT_TRUE(vm().paused) << "before a store meets ENOSPC";
  machine_.disk_available = options_.capacity.resume_bytes - 1;
  look();
  look();
  EXPECT_FALSE(vm().paused) << "the last goes on first";
  EXPECT_TRUE(machine_.vms[kSuccessor].paused);
  machine_.disk_state = Machine::DiskState::kFine;
  look();
  look();
  EXPECT_FALSE(machine_.vms[kSuccessor].paused);
}

TEST_F(AgentTest, OneWhoseDiskCannotGrowStandsStillWithRoomForOthers) {
  Settle();
  machine_.starved = kUid;
  agent_->TendDisks();
  ASSERT_TRUE(Reconcile());
  EXPECT_TRUE(vm().paused);
  EXPECT_EQ(ReadyReason(), "NodeDiskFull");
  machine_.starved.reset();
  agent_->TendDisks();
  Settle();
  EXPECT_FALSE(vm().paused);
}

TEST_F(AgentTest, ASandboxWhoseObjectComesBackGoesOnFromItsDiskOrItsMemory) {
  for (const auto mode : {api::OperatingMode::kRunning, api::OperatingMode::kSuspended}) {
    Wish(mode);
    Settle();
    const api::Sandbox object = *control_plane_.live;
    const uint64_t incarnation = records_->Find(kUid)->incarnation;
    store_.Remove({object.meta.key(), object.meta.uid, {}});
    control_plane_.live.reset();
    Settle();
    EXPECT_EQ(vm().pid, 0);
    Put(object);
    Settle();
    const bool asleep = mode == api::OperatingMode::kSuspended;
    EXPECT_EQ(Phase(), asleep ? "Suspended" : "Running");
    EXPECT_EQ(records_->Find(kUid)->incarnation, incarnation + (asleep ? 0 : 1));
    EXPECT_EQ(vm().generations.size(), asleep ? 1U : 0U) << "its memory is kept";
  }
}

TEST_F(AgentTest, ASandboxWhoseObjectComesBackWaitsForTheMemoryThatOthersGotMeanwhile) {
  Settle();
  const api::Sandbox object = *control_plane_.live;
  store_.Remove({object.meta.key(), object.meta.uid, {}});
  control_plane_.live.reset();
  Settle();
  options_.memory_bytes = 1 << 20;
  Restart();
  Put(object);
  Settle();
  EXPECT_EQ(vm().pid, 0);
  options_.memory_bytes = 0;
  Restart();
  Settle();
  EXPECT_EQ(Phase(), "Running");
}

TEST_F(AgentTest, ARecordOfAnotherClusterIsLeftAlone) {
  Settle();
  Restart("cluster-2");
  Settle();
  EXPECT_NE(vm().pid, 0);
}

TEST_F(AgentTest, WhatNoSandboxAccountsForIsSweptAtTheStart) {
  machine_.vms[kSuccessor].disk = true;
  Restart();
  EXPECT_TRUE(machine_.vms[kSuccessor].Nothing());
}

TEST_F(AgentTest, ASlotIsGivenBackByOneThatIsGoneBeforeItsFirstRecord) {
  for (const auto mode : {api::OperatingMode::kRunning, api::OperatingMode::kSuspended}) {
    Change([mode](api::Sandbox& sandbox) { sandbox.spec.operating_mode = mode; });
    ASSERT_TRUE(failpoint::Arm("agent.step.before.record.save=error(EIO)"));
    EXPECT_FALSE(Reconcile());
    failpoint::DisarmAll();
    const api::Sandbox gone = *control_plane_.live;
    store_.Remove({gone.meta.key(), gone.meta.uid, {}});
    control_plane_.live.reset();
    ASSERT_TRUE(Reconcile());
    EXPECT_EQ(records_->ReserveSlot(kSuccessor, 2).value_or(0), 1U) << "the only one";
    ASSERT_TRUE(records_->DropUnrecorded(kSuccessor));
    Put(gone);
  }
}

TEST_F(AgentTest, AnEtcdThatWasRestoredIsBelievedRatherThanOurOwnLastWrite) {
  Settle();
  const api::Sandbox snapshot = *control_plane_.live;
  Wish(api::OperatingMode::kSuspended);
  Settle();
  ASSERT_EQ(Phase(), "Suspended");
  Restore(snapshot);
  Settle();
  EXPECT_EQ(Phase(), "Running") << "as its user wished then";
  EXPECT_NE(vm().pid, 0);
}

TEST_F(AgentTest, AStatusThatARestoredEtcdHasForgottenIsToldAnew) {
  Settle();
  api::Sandbox snapshot = *control_plane_.live;
  snapshot.status.phase = "Starting";
  snapshot.meta.resource_version = kube::ResourceVersion("100");
  Change([](api::Sandbox&) {});
  Settle();
  Restore(snapshot);
  ASSERT_TRUE(Reconcile());
  EXPECT_EQ(Phase(), "Running");
}

}  // namespace
}  // namespace dormouse
