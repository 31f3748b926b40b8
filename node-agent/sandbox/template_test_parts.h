// What tests of templates and of what starts from them share: an agent with its template keeper,
// and the API server's side of one template.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/sandbox/agent_test_parts.h"
#include "node-agent/sandbox/template_keeper.h"

namespace dormouse {

inline const std::string kTemplateUid = "2b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a33";
inline const api::SandboxUid kTemplate = *api::SandboxUid::Parse(kTemplateUid);

class FakeTemplateApi : public TemplateControlPlane {
 public:
  Result<std::optional<api::SnapshotTemplate>> ReadLive(const kube::ObjectKey&) override {
    return live;
  }
  Result<std::optional<api::SnapshotTemplate>> WriteStatus(
      const api::SnapshotTemplate& object, const api::SnapshotTemplateStatus& status) override {
    if (!live || live->meta.uid != object.meta.uid) return std::optional<api::SnapshotTemplate>();
    writes.push_back(status);
    live->status = status;
    live->meta.resource_version = Next(live->meta.resource_version);
    return live;
  }
  void Event(const api::SnapshotTemplate&, bool, std::string_view reason,
             std::string_view) override {
    events.push_back(std::string(reason));
  }
  std::optional<api::SnapshotTemplate> live;
  std::vector<api::SnapshotTemplateStatus> writes;
  std::vector<std::string> events;
};

class TemplatesTest : public AgentTest {
 protected:
  void MakeKeeper() {
    keeper_ = std::make_unique<TemplateKeeper>(options_, *agent_, machine_, *records_, *templates_,
                                               objects_, store_, template_api_, clock_);
  }
  void RestartAll() {
    keeper_.reset();
    Restart();
    MakeKeeper();
  }
  void PutTemplate(const api::SnapshotTemplate& object) {
    template_api_.live = object;
    objects_.Upsert({object.meta.key(), object.meta.uid, object.meta.resource_version},
                    std::make_shared<api::SnapshotTemplate>(object), false);
  }
  void ChangeTemplate(const std::function<void(api::SnapshotTemplate&)>& change) {
    api::SnapshotTemplate object = *template_api_.live;
    change(object);
    object.meta.resource_version = Next(object.meta.resource_version);
    PutTemplate(object);
  }
  void AskForTemplate() {
    api::SnapshotTemplate object;
    object.meta.ns = "default";
    object.meta.name = "warm";
    object.meta.uid = kTemplateUid;
    object.meta.generation = 1;
    object.meta.finalizers = {api::kCleanupFinalizer};
    object.meta.creation_time = clock_.WallNow();
    object.meta.resource_version = kube::ResourceVersion("100");
    object.source = "web";
    object.status.node_name = "node-1";
    PutTemplate(object);
    MakeKeeper();
  }
  // Of what runs.
  void MakeTemplate() {
    Settle();
    AskForTemplate();
    SettleAll();
  }
  void AddClone(const api::SandboxUid& uid, const std::string& name) {
    api::Sandbox clone = *control_plane_.live;
    clone.meta.name = name;
    clone.meta.uid = uid.text();
    clone.uid = uid;
    clone.spec = {};
    clone.spec.snapshot_template = "warm";
    clone.status = {};
    clone.status.node_name = "node-1";
    Put(clone);
  }
  void DeleteTemplate() {
    ChangeTemplate(
        [&](api::SnapshotTemplate& object) { object.meta.deletion_time = clock_.WallNow(); });
  }
  // Once, in the middle of that step.
  void During(Step step, std::function<void()> happens) {
    machine_.meanwhile = [step, happens = std::move(happens), done = false](Step taken) mutable {
      if (taken == step && !std::exchange(done, true)) happens();
    };
  }
  // There is one turn, and the template's source, which is silent, has it while it wakes.
  void LetTheSourceKeepTheOnlyTurn() {
    options_.wakes_at_once = 1;
    Restart();
    MakeTemplate();
    Wish(api::OperatingMode::kSuspended);
    SettleAll();
    Wish(api::OperatingMode::kRunning);
    vm().silent = true;
    ASSERT_TRUE(Reconcile());
    ASSERT_NE(vm().pid, 0);
  }
  // As the two queues would, until nothing more changes.
  void SettleAll(const api::SandboxUid& uid = kUid) {
    for (int i = 0; i < 10; ++i) {
      if (keeper_) (void)keeper_->Reconcile(kTemplateUid);
      (void)Reconcile(uid);
      clock_.Advance(1s);
    }
    if (keeper_) (void)keeper_->Reconcile(kTemplateUid);
  }
  const api::SnapshotTemplateStatus& Template() { return template_api_.live->status; }
  bool TemplateIs(const char* condition) { return api::IsTrue(Template().conditions, condition); }
  std::string StartMode() { return control_plane_.live->status.vm.start_mode; }

  kube::Store<api::SnapshotTemplate> objects_;
  FakeTemplateApi template_api_;
  std::unique_ptr<TemplateKeeper> keeper_;
};

}  // namespace dormouse
