#include "controller/templates/template_step.h"

#include <gtest/gtest.h>

#include <functional>

namespace dormouse::controller {
namespace {

using namespace std::chrono_literals;
using api::ConditionStatus;

constexpr WallTime kMade{1000s};
constexpr WallTime kCaptured{2000s};

/// A template of generation 7, made at kMade, and what is known beside it.
struct World {
  api::SnapshotTemplate object;
  api::Sandbox source;
  TemplateView view;

  World() {
    object.meta.uid = "t1";
    object.meta.generation = 7;
    object.meta.creation_time = kMade;
    object.source = "s1";
    source.meta.generation = 1;
    source.status.node_name = "n1";
    view.source = &source;
    view.node.state = NodeState::kAlive;
    view.now = kMade + 1s;
  }
  void Say(const char* type, ConditionStatus status, int64_t generation = 7, WallTime when = {}) {
    object.status.conditions.push_back({type, status, "Reason", "", generation, when});
  }
  void Placed() {
    object.status.node_name = "n1";
    object.meta.finalizers = {api::kCleanupFinalizer};
  }
  void Deleted() { object.meta.deletion_time = kMade; }
  void Captured() {
    Placed();
    object.status.ready_to_use = true;
    object.status.creation_time = kCaptured;
    object.status.source_uid = "u1";
    view.now = kCaptured + 1s;
  }
  void Lasts(std::chrono::seconds ttl, std::chrono::seconds since_capture) {
    Captured();
    object.ttl = ttl;
    view.now = kCaptured + since_capture;
  }
  void Gone(NodeState state) {
    Placed();
    Deleted();
    object.meta.annotations[api::kNodeIsGoneAnnotation] = "n1";
    view.node = {state, state == NodeState::kLost ? 0s : 30s};
  }
};

struct TemplateCase {
  const char* name;
  std::function<void(World*)> arrange;
  TemplateStep step;
  std::optional<std::chrono::nanoseconds> again = std::nullopt;
};

const auto kSuspend = api::SourceAfterCapture::kSuspend;

const TemplateCase kTemplateCases[] = {
    // Before it has a node.
    {"its source is on a node", [](World*) {}, TemplateStep::kPlace},
    {"the last controller died half way",
     [](World* w) { w->object.meta.finalizers = {api::kCleanupFinalizer}; }, TemplateStep::kPlace},
    {"there is no source", [](World* w) { w->view.source = nullptr; }, TemplateStep::kWait, 299s},
    {"its source is on no node", [](World* w) { w->source.status.node_name.clear(); },
     TemplateStep::kWait, 299s},
    {"its source is being deleted", [](World* w) { w->source.meta.deletion_time = kMade; },
     TemplateStep::kWait, 299s},
    {"its source was refused and is placed anew",
     [](World* w) {
       w->source.status.conditions.push_back(
           {"Released", ConditionStatus::kTrue, "NoCapacity", "", 1, {}});
     },
     TemplateStep::kWait, 299s},
    {"the deadline has come",
     [](World* w) { w->view.source = nullptr, w->view.now = kMade + 300s; }, TemplateStep::kFail},
    {"the deadline has come, and so has the source", [](World* w) { w->view.now = kMade + 300s; },
     TemplateStep::kFail},
    {"failed, and the source is there at last",
     [](World* w) { w->Say("Failed", ConditionStatus::kTrue); }, TemplateStep::kNothing},
    {"failed before its ttl was edited",
     [](World* w) { w->Say("Failed", ConditionStatus::kTrue, 6); }, TemplateStep::kNothing},

    // Placed.
    {"its agent works on it", [](World* w) { w->Placed(); }, TemplateStep::kNothing},
    {"placed, and its deadline has come: the agent's to say",
     [](World* w) { w->Placed(), w->view.now = kMade + 400s; }, TemplateStep::kNothing},
    {"ready", [](World* w) { w->Captured(); }, TemplateStep::kNothing},
    {"ready, the source is to sleep",
     [](World* w) { w->Captured(), w->object.source_after_capture = kSuspend; },
     TemplateStep::kSettleSource},
    {"ready, the source is to go",
     [](World* w) {
       w->Captured(), w->object.source_after_capture = api::SourceAfterCapture::kDelete;
     },
     TemplateStep::kSettleSource},
    {"not ready yet, the source is to sleep",
     [](World* w) { w->Placed(), w->object.source_after_capture = kSuspend; },
     TemplateStep::kNothing},
    {"ready, but of which source is not said yet",
     [](World* w) {
       w->Captured(), w->object.source_after_capture = kSuspend;
       w->object.status.source_uid.clear();
     },
     TemplateStep::kNothing},
    {"settled before",
     [](World* w) {
       w->Captured(), w->object.source_after_capture = kSuspend;
       w->object.meta.annotations[api::kSourceSettledAnnotation] = "t1";
     },
     TemplateStep::kNothing},
    {"copied from one that was settled",
     [](World* w) {
       w->Captured(), w->object.source_after_capture = kSuspend;
       w->object.meta.annotations[api::kSourceSettledAnnotation] = "t0";
     },
     TemplateStep::kSettleSource},
    {"its finalizer was taken away",
     [](World* w) {
       w->Captured(), w->object.meta.finalizers.clear();
       w->object.status.phase = api::template_phase::kReady;
     },
     TemplateStep::kClaimAgain},
    {"its agent has yet to speak, and it has no finalizer",
     [](World* w) {
       w->Placed(), w->object.meta.finalizers.clear();
       w->object.status.phase = api::template_phase::kPending;
     },
     TemplateStep::kNothing},
    {"deleted before it was settled",
     [](World* w) { w->Captured(), w->Deleted(), w->object.source_after_capture = kSuspend; },
     TemplateStep::kNothing},

    // Its ttl.
    {"never used, its ttl to come", [](World* w) { w->Lasts(60s, 20s); }, TemplateStep::kNothing,
     40s},
    {"never used, its ttl has passed", [](World* w) { w->Lasts(60s, 60s); }, TemplateStep::kExpire},
    {"without a ttl", [](World* w) { w->Lasts(0s, 9999s); }, TemplateStep::kNothing},
    {"in use by count", [](World* w) { w->Lasts(60s, 90s), w->object.status.references = 1; },
     TemplateStep::kNothing},
    {"in use by its condition",
     [](World* w) { w->Lasts(60s, 90s), w->Say("InUse", ConditionStatus::kTrue); },
     TemplateStep::kNothing},
    {"nobody knows whether it is in use",
     [](World* w) { w->Lasts(60s, 90s), w->Say("InUse", ConditionStatus::kUnknown); },
     TemplateStep::kNothing},
    {"left lately by the last that used it",
     [](World* w) {
       w->Lasts(60s, 90s), w->Say("InUse", ConditionStatus::kFalse, 7, kCaptured + 80s);
     },
     TemplateStep::kNothing, 50s},
    {"left long ago",
     [](World* w) {
       w->Lasts(60s, 90s), w->Say("InUse", ConditionStatus::kFalse, 7, kCaptured + 30s);
     },
     TemplateStep::kExpire},
    {"said to be unused since before it was captured",
     [](World* w) {
       w->Lasts(60s, 50s), w->Say("InUse", ConditionStatus::kFalse, 7, kCaptured - 30s);
     },
     TemplateStep::kNothing, 10s},
    {"a sandbox waits to be placed from it",
     [](World* w) { w->Lasts(60s, 90s), w->view.awaited = true; }, TemplateStep::kNothing},
    {"its agent does not say when it was captured",
     [](World* w) { w->Lasts(60s, 90s), w->object.status.creation_time.reset(); },
     TemplateStep::kNothing},
    {"not ready", [](World* w) { w->Lasts(60s, 90s), w->object.status.ready_to_use = false; },
     TemplateStep::kNothing},
    {"its source first",
     [](World* w) { w->Lasts(60s, 90s), w->object.source_after_capture = kSuspend; },
     TemplateStep::kSettleSource},

    // Being deleted.
    {"deleted before it was placed",
     [](World* w) { w->Placed(), w->Deleted(), w->object.status.node_name.clear(); },
     TemplateStep::kRemoveFinalizer},
    {"deleted, held by another's finalizer",
     [](World* w) { w->Deleted(), w->object.meta.finalizers = {"other.example/x"}; },
     TemplateStep::kNothing},
    {"deleted, its agent works on it", [](World* w) { w->Placed(), w->Deleted(); },
     TemplateStep::kNothing},
    {"deleted, Released is of an older spec",
     [](World* w) { w->Placed(), w->Deleted(), w->Say("Released", ConditionStatus::kTrue, 6); },
     TemplateStep::kNothing},
    {"deleted, not Released",
     [](World* w) { w->Placed(), w->Deleted(), w->Say("Released", ConditionStatus::kFalse); },
     TemplateStep::kNothing},
    {"deleted and Released",
     [](World* w) { w->Placed(), w->Deleted(), w->Say("Released", ConditionStatus::kTrue); },
     TemplateStep::kRemoveFinalizer},
    {"Released, but not deleted",
     [](World* w) { w->Placed(), w->Say("Released", ConditionStatus::kTrue); },
     TemplateStep::kNothing},
    {"deleted, its node is gone", [](World* w) { w->Gone(NodeState::kLost); },
     TemplateStep::kRemoveFinalizer},
    {"deleted, its node is said to be gone, and lives",
     [](World* w) { w->Gone(NodeState::kAlive); }, TemplateStep::kGoneNodeLives, 30s},
    {"deleted, its node is said to be gone, and may live",
     [](World* w) { w->Gone(NodeState::kUnknown); }, TemplateStep::kNothing, 30s},
    {"deleted, another node is said to be gone",
     [](World* w) {
       w->Gone(NodeState::kLost), w->object.meta.annotations[api::kNodeIsGoneAnnotation] = "n2";
     },
     TemplateStep::kNothing},
    {"its node is gone, but it is not deleted",
     [](World* w) { w->Gone(NodeState::kLost), w->object.meta.deletion_time.reset(); },
     TemplateStep::kNothing},
};

TEST(TemplateStepTest, EachStateHasItsStep) {
  for (const TemplateCase& one : kTemplateCases) {
    World world;
    one.arrange(&world);
    const TemplateDecision decision = NextTemplateStep(world.object, world.view);
    EXPECT_EQ(decision.step, one.step) << one.name;
    EXPECT_EQ(decision.again, one.again) << one.name;
  }
}

TEST(TemplateStepTest, TheMessageSaysWhatIsMissing) {
  World world;
  world.source.status.node_name.clear();
  EXPECT_EQ(NextTemplateStep(world.object, world.view).message, "the Sandbox s1 has no node yet");
  world.view.source = nullptr;
  EXPECT_EQ(NextTemplateStep(world.object, world.view).message,
            "there is no Sandbox s1 in this namespace yet");
  world.view.now = kMade + 300s;
  EXPECT_EQ(NextTemplateStep(world.object, world.view).message,
            "nothing was captured within failureDeadline (300 s): there is no Sandbox s1 in this "
            "namespace yet");
}

}  // namespace
}  // namespace dormouse::controller
