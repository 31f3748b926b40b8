#include "controller/templates/template_controller.h"

#include <gtest/gtest.h>

#include "controller/templates/fake_template_api.h"
#include "src/common/base/failpoint.h"

namespace dormouse::controller {
namespace {

using namespace std::chrono_literals;
using api::ConditionStatus;
using api::OperatingMode;
using api::SourceAfterCapture;
using testing::Test;
using Lines = std::vector<std::string>;

class TemplateControllerTest : public Test {
 protected:
  TemplateControllerTest() {
    sandboxes_.AddIndex(kByTemplate, [](const api::Sandbox& sandbox) {
      return std::vector<std::string>{sandbox.meta.ns + "/" + sandbox.spec.snapshot_template};
    });
    Renew();
  }
  ~TemplateControllerTest() override { failpoint::DisarmAll(); }

  void Renew() {
    kube::LeaseRecord lease;
    lease.ref.resource_version = kube::ResourceVersion(std::to_string(++lease_version_));
    lease.renewed = clock_.WallNow();
    health_.Observe("n1", lease);
  }
  kube::ReconcileResult Once(const std::string& name) {
    const auto result = controller_.Reconcile("team/" + name);
    EXPECT_TRUE(result) << result.error().message();
    return result.value_or(kube::ReconcileResult::Done());
  }
  /// Lets cache and queue go on until nothing more happens.
  void Settle() {
    for (int round = 0; round < 50; ++round) {
      api_.CatchUp();
      const auto key = queue_.TryGet();
      if (!key) return;
      const auto result = controller_.Reconcile(*key);
      if (!result) queue_.Add(*key);
      if (result && result->requeue_after()) queue_.AddAfter(*key, *result->requeue_after());
      queue_.Done(*key);
    }
    FAIL() << "it does not settle";
  }
  /// Lets the next controller take over where a failpoint made this one end.
  void DieAt(const std::string& point) {
    ASSERT_TRUE(failpoint::Arm(point + "=1*error(EIO)"));
    Settle();
    failpoint::DisarmAll();
  }
  api::Sandbox& PlaceSource() {
    api::Sandbox& source = sandboxes_api_.Edit("s1");
    source.status.node_name = "n1";
    return source;
  }
  /// As the agent reports it.
  api::SnapshotTemplate& Capture(const std::string& name) {
    api::SnapshotTemplate& object = api_.Edit(name);
    object.status.phase = api::template_phase::kReady;
    object.status.ready_to_use = true;
    object.status.creation_time = clock_.WallNow();
    object.status.source_uid = sandboxes_api_.Find("s1")->meta.uid;
    return object;
  }
  /// A template of "s1" that has its node, and is captured; what was written for that is forgotten.
  void Captured(SourceAfterCapture after, std::chrono::seconds ttl = 0s) {
    PlaceSource();
    api_.Edit("warm").source_after_capture = after;
    api_.Edit("warm").ttl = ttl;
    Settle();
    ASSERT_EQ(Seen("warm").status.node_name, "n1");
    api_.writes.clear();
    api_.events.clear();
    Capture("warm");
  }
  void Report(const char* type, ConditionStatus status) {
    api::SnapshotTemplate& object = api_.Edit("warm");
    api::SetCondition(&object.status.conditions,
                      {type, status, "Reason", "", object.meta.generation, {}}, clock_.WallNow());
  }
  const api::SnapshotTemplate& Seen(const std::string& name) { return *api_.Find(name); }
  OperatingMode SourceMode() { return sandboxes_api_.Find("s1")->spec.operating_mode; }
  std::string Shown(const std::string& name, const char* type = "Ready") {
    const api::Condition* condition = api::FindCondition(Seen(name).status.conditions, type);
    if (condition == nullptr) return "";
    const char* const words[] = {"True", "False", "Unknown"};
    return words[static_cast<int>(condition->status)] + std::string(" ") + condition->reason;
  }
  std::string Message() {
    return api::FindCondition(Seen("warm").status.conditions, "Ready")->message;
  }

  FakeClock clock_;
  metrics::Registry metrics_;
  SandboxStore sandboxes_;
  SnapshotTemplateStore templates_;
  FakeSandboxApi sandboxes_api_{sandboxes_};
  FakeTemplateApi api_{templates_, sandboxes_api_, clock_};
  kube::WorkQueue queue_{[this] {
    kube::WorkQueueOptions options;
    options.clock = &clock_;
    options.metrics = &metrics_;
    return options;
  }()};
  NodeHealth health_{clock_, 40s};
  TemplateController controller_{templates_, sandboxes_, health_, api_, queue_, clock_, {}};
  int lease_version_ = 0;
};

TEST_F(TemplateControllerTest, ItWaitsForItsSourceAndFollowsItToItsNode) {
  api_.Edit("warm");
  Settle();
  EXPECT_EQ(Seen("warm").status.phase, "Pending");
  EXPECT_EQ(Shown("warm"), "False SourceNotReady");
  EXPECT_EQ(Message(), "there is no Sandbox s1 in this namespace yet");
  EXPECT_EQ(Seen("warm").meta.finalizers, Lines{}) << "it can be deleted at once";
  sandboxes_api_.Edit("s1");
  Settle();
  EXPECT_EQ(Message(), "the Sandbox s1 has no node yet");
  PlaceSource();
  Settle();
  EXPECT_EQ(Seen("warm").status.node_name, "n1");
  EXPECT_EQ(Seen("warm").status.phase, "Pending");
  EXPECT_EQ(Shown("warm"), "False Capturing");
  EXPECT_TRUE(Seen("warm").meta.HasFinalizer(api::kCleanupFinalizer));
  EXPECT_EQ(api_.writes, (Lines{"apply status of warm", "apply status of warm", "claim warm",
                                "apply status of warm"}));
  EXPECT_EQ(api_.events, (Lines{"SourceNotReady warm", "Scheduled warm"}));
  queue_.Add("team/warm");
  Settle();
  EXPECT_EQ(api_.writes.size(), 4U) << "the rest is the agent's";
}

TEST_F(TemplateControllerTest, ASourceThatIsBeingDeletedIsNotFollowed) {
  PlaceSource().meta.finalizers = {api::kCleanupFinalizer};
  sandboxes_api_.Delete("s1");
  api_.Edit("warm");
  Settle();
  EXPECT_EQ(Seen("warm").status.node_name, "");
  EXPECT_EQ(Message(), "the Sandbox s1 is being deleted");
}

TEST_F(TemplateControllerTest, ItDoesNotFollowASourceThatOnlyTheCacheHas) {
  PlaceSource();
  api_.Edit("warm");
  api_.CatchUp();
  sandboxes_api_.Delete("s1");
  EXPECT_TRUE(Once("warm").requeue_after());
  EXPECT_EQ(api_.writes, Lines{});
}

TEST_F(TemplateControllerTest, ItFailsAtItsDeadlineAndStaysFailed) {
  api_.Edit("warm").failure_deadline = 90s;
  Settle();
  clock_.Advance(89s);
  Settle();
  EXPECT_EQ(Seen("warm").status.phase, "Pending");
  clock_.Advance(2s);
  Settle();
  EXPECT_EQ(Seen("warm").status.phase, "Failed");
  EXPECT_EQ(Shown("warm"), "False SourceNotReady");
  EXPECT_EQ(Shown("warm", "Failed"), "True SourceNotReady");
  ASSERT_TRUE(Seen("warm").status.error);
  EXPECT_EQ(Seen("warm").status.error->time, clock_.WallNow());
  EXPECT_EQ(Seen("warm").status.error->message, Message());
  EXPECT_EQ(Message(),
            "nothing was captured within failureDeadline (90 s): there is no Sandbox s1 in this "
            "namespace yet");
  const Lines writes = api_.writes;
  PlaceSource();
  queue_.Add("team/warm");
  Settle();
  EXPECT_EQ(api_.writes, writes) << "a template is never overwritten: another one is made";
  api_.Remove("warm");
  EXPECT_EQ(api_.Find("warm"), nullptr) << "nothing holds it";
}

TEST_F(TemplateControllerTest, ItDoesNotActOnACacheOlderThanItsOwnWrite) {
  PlaceSource();
  api_.Edit("warm");
  api_.CatchUp();
  Once("warm");
  ASSERT_EQ(api_.writes.size(), 2U);
  EXPECT_TRUE(Once("warm").requeue_after()) << "waits for the cache";
  EXPECT_EQ(api_.writes.size(), 2U);
}

TEST_F(TemplateControllerTest, AChangeInBetweenIsNeverOverwritten) {
  PlaceSource();
  api_.Edit("warm");
  api_.CatchUp();
  api_.Remove("warm");
  api_.Edit("warm");  // a successor of the same name
  EXPECT_FALSE(controller_.Reconcile("team/warm"));
  EXPECT_EQ(api_.writes, Lines{});
}

TEST_F(TemplateControllerTest, AWriteThatFailedIsRepeated) {
  PlaceSource();
  api_.Edit("warm");
  api_.fail_next = ErrorCode::kUnavailable;
  Settle();
  EXPECT_EQ(Seen("warm").status.node_name, "n1");
}

TEST_F(TemplateControllerTest, AControllerThatDiesWhilePlacingIsSucceeded) {
  for (const char* point : {"before-finalizer", "after-finalizer", "after-node-name"}) {
    const std::string name = std::string("t-") + point;
    PlaceSource();
    api_.Edit(name);
    DieAt("controller.template." + std::string(point));
    Settle();
    EXPECT_EQ(Seen(name).status.node_name, "n1") << point;
    EXPECT_EQ(Seen(name).meta.finalizers, Lines{api::kCleanupFinalizer}) << point;
    EXPECT_EQ(std::count(api_.writes.begin(), api_.writes.end(), "apply status of " + name), 1)
        << point;
  }
}

TEST_F(TemplateControllerTest, DeletedAfterAControllerDiedWithTheFinalizerItGoes) {
  api_.Edit("warm").meta.finalizers = {api::kCleanupFinalizer};
  api_.Remove("warm");
  Settle();
  EXPECT_EQ(api_.Find("warm"), nullptr);
  EXPECT_EQ(api_.reads, 1) << "after a live read";
}

TEST_F(TemplateControllerTest, DeletedItWaitsUntilItsAgentHasReleasedIt) {
  Captured(SourceAfterCapture::kResume);
  Report("Released", ConditionStatus::kTrue);  // of the spec before the deletion
  api_.Remove("warm");
  Settle();
  ASSERT_NE(api_.Find("warm"), nullptr);
  Report("Released", ConditionStatus::kTrue);
  Settle();
  EXPECT_EQ(api_.Find("warm"), nullptr);
}

TEST_F(TemplateControllerTest, TheFinalizerIsNotRemovedOnTheWordOfAStaleCache) {
  api_.Edit("warm").meta.finalizers = {api::kCleanupFinalizer};
  api_.Remove("warm");
  api_.CatchUp();
  api_.Edit("warm").status.node_name = "n1";  // another leader placed it a moment ago
  EXPECT_TRUE(Once("warm").requeue_after());
  EXPECT_EQ(api_.writes, Lines{});
}

TEST_F(TemplateControllerTest, APersonsWordEndsADeletionOnALostNodeOnly) {
  Captured(SourceAfterCapture::kResume);
  api_.Edit("warm").meta.annotations[api::kNodeIsGoneAnnotation] = "n1";
  api_.Remove("warm");
  Settle();
  ASSERT_NE(api_.Find("warm"), nullptr) << "its agent is alive";
  EXPECT_EQ(api_.events, Lines{"NodeNotLost warm"});
  clock_.Advance(41s);
  Settle();
  EXPECT_EQ(api_.Find("warm"), nullptr) << "without another change of the object";
}

TEST_F(TemplateControllerTest, TheSourceSleepsWhenThatWasAskedAndNeverAgain) {
  Captured(SourceAfterCapture::kSuspend);
  Settle();
  EXPECT_EQ(SourceMode(), OperatingMode::kSuspended);
  EXPECT_EQ(api_.writes, (Lines{"suspend source s1", "mark warm"}));
  EXPECT_EQ(api_.events, Lines{"Suspended warm"});
  sandboxes_api_.Edit("s1").spec.operating_mode = OperatingMode::kRunning;
  api_.Edit("warm");
  Settle();
  EXPECT_EQ(SourceMode(), OperatingMode::kRunning) << "the user's later word";
}

TEST_F(TemplateControllerTest, AControllerThatDiesInBetweenSuspendsTheSourceOnceOnly) {
  Captured(SourceAfterCapture::kSuspend);
  ASSERT_TRUE(failpoint::Arm("controller.template.after-source=1*error(EIO)"));
  api_.CatchUp();
  EXPECT_FALSE(controller_.Reconcile("team/warm"));
  ASSERT_EQ(SourceMode(), OperatingMode::kSuspended);
  // The user wakes it before the next controller has come.
  sandboxes_api_.Edit("s1").spec.operating_mode = OperatingMode::kRunning;
  Settle();
  EXPECT_EQ(SourceMode(), OperatingMode::kRunning);
  EXPECT_EQ(api_.writes, (Lines{"suspend source s1", "mark warm"}));
}

TEST_F(TemplateControllerTest, TheSourceGoesWhenThatWasAsked) {
  Captured(SourceAfterCapture::kDelete);
  DieAt("controller.template.after-source");
  Settle();
  EXPECT_EQ(sandboxes_api_.Find("s1"), nullptr);
  EXPECT_TRUE(Seen("warm").meta.annotations.contains(api::kSourceSettledAnnotation));
  EXPECT_EQ(api_.writes, (Lines{"delete source s1", "mark warm"}));
}

TEST_F(TemplateControllerTest, ASuccessorOfTheSourcesNameIsLeftAlone) {
  for (const auto after : {SourceAfterCapture::kSuspend, SourceAfterCapture::kDelete}) {
    Captured(after);
    sandboxes_api_.Delete("s1");
    PlaceSource();
    Settle();
    EXPECT_EQ(SourceMode(), OperatingMode::kRunning);
    EXPECT_EQ(api_.writes, Lines{"mark warm"});
    EXPECT_EQ(api_.events, Lines{}) << "nothing was done to it";
    api_.Edit("warm").meta.finalizers.clear();
    api_.Remove("warm");
    Settle();
  }
}

TEST_F(TemplateControllerTest, ASourceThatIsGoneIsSettled) {
  Captured(SourceAfterCapture::kDelete);
  sandboxes_api_.Delete("s1");
  Settle();
  EXPECT_EQ(api_.writes, Lines{"mark warm"});
}

TEST_F(TemplateControllerTest, ASourceThatGoesOnIsNotTouched) {
  Captured(SourceAfterCapture::kResume);
  Settle();
  EXPECT_EQ(api_.writes, Lines{});
}

TEST_F(TemplateControllerTest, ItExpiresWhenNobodyHasUsedItForItsTtl) {
  Captured(SourceAfterCapture::kResume, 600s);
  Settle();
  clock_.Advance(500s);
  api_.Edit("warm").status.references = 1;
  Report("InUse", ConditionStatus::kTrue);
  Settle();
  clock_.Advance(1000s);
  api_.Edit("warm").status.references = 0;
  Report("InUse", ConditionStatus::kFalse);
  Settle();
  clock_.Advance(599s);
  Settle();
  EXPECT_EQ(api_.writes, Lines{}) << "the ttl counts from when it was last used";
  clock_.Advance(2s);
  Settle();
  EXPECT_EQ(api_.writes, Lines{"delete warm"});
  EXPECT_EQ(api_.events, Lines{"Expired warm"});
  EXPECT_TRUE(Seen("warm").meta.deletion_time) << "the agent cleans up, then it goes";
}

TEST_F(TemplateControllerTest, ItDoesNotExpireOnTheWordOfAStaleCache) {
  Captured(SourceAfterCapture::kResume, 600s);
  Settle();
  clock_.Advance(601s);
  api_.Edit("warm").status.references = 1;
  EXPECT_TRUE(Once("warm").requeue_after());
  EXPECT_EQ(api_.writes, Lines{});
}

TEST_F(TemplateControllerTest, ItDoesNotExpireUnderASandboxThatWaitsToStartFromIt) {
  Captured(SourceAfterCapture::kResume, 600s);
  sandboxes_api_.Edit("clone").spec.snapshot_template = "warm";
  Settle();
  clock_.Advance(601s);
  queue_.Add("team/warm");
  Settle();
  EXPECT_EQ(api_.writes, Lines{});
  sandboxes_api_.Delete("clone");
  Settle();
  EXPECT_EQ(api_.writes, Lines{"delete warm"});
}

TEST_F(TemplateControllerTest, ATtlThatIsSetLaterCounts) {
  Captured(SourceAfterCapture::kResume);
  Settle();
  clock_.Advance(601s);
  api_.Edit("warm").ttl = 600s;
  Settle();
  EXPECT_EQ(api_.writes, Lines{"delete warm"});
}

}  // namespace
}  // namespace dormouse::controller
