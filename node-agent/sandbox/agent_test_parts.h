// An agent over a machine of booleans and an API server of one object. For tests only.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "node-agent/host/test_support.h"
#include "node-agent/machine/fake_machine.h"
#include "node-agent/sandbox/agent.h"
#include "src/common/base/failpoint.h"
#include "src/common/base/files.h"
#include "src/common/base/metrics.h"

namespace dormouse {

using namespace std::chrono_literals;

inline const api::SandboxUid kUid = *api::SandboxUid::Parse("0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a11");
inline const api::SandboxUid kSuccessor =
    *api::SandboxUid::Parse("1b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a22");

inline kube::ResourceVersion Next(const kube::ResourceVersion& version) {
  return kube::ResourceVersion(std::to_string(std::stoll(version.text()) + 1));
}

/// What /metrics shows for that name and those labels; 0 where there is nothing yet.
inline double Sample(const std::string& metric, const std::string& labels) {
  const std::string text = metrics::Registry::Default().Text();
  const std::string sample = "\n" + metric + "{" + labels + "} ";
  const size_t at = text.find(sample);
  return at == text.npos ? 0 : std::stod(text.substr(at + sample.size()));
}

// The API server's side: one object, and what was written to it.
class FakeControlPlane : public ControlPlane {
 public:
  Result<std::optional<api::Sandbox>> ReadLive(const kube::ObjectKey&) override {
    if (down) return Fail(ErrorCode::kUnavailable, "connection refused");
    return live;
  }
  Result<std::optional<api::Sandbox>> WriteStatus(const api::Sandbox& sandbox,
                                                  const api::SandboxStatus& status) override {
    if (down) return Fail(ErrorCode::kUnavailable, "connection refused");
    if (!live || live->uid != sandbox.uid) return std::optional<api::Sandbox>();
    writes.push_back(status);
    if (on_write) on_write();
    live->status = status;
    live->meta.resource_version = Next(live->meta.resource_version);
    return live;
  }
  void Event(const api::Sandbox&, bool warning, std::string_view reason,
             std::string_view note) override {
    events.push_back((warning ? "Warning " : "Normal ") + std::string(reason) + ": " +
                     std::string(note));
  }

  std::optional<api::Sandbox> live;
  std::vector<api::SandboxStatus> writes;
  std::vector<std::string> events;
  std::function<void()> on_write;
  bool down = false;
};

class AgentTest : public ::testing::Test {
 protected:
  AgentTest() {
    paths_.state = directory_.path();
    paths_.run = paths_.state + "/run";
    machine_.paths = paths_;
    api::Sandbox sandbox;
    sandbox.meta.ns = "default";
    sandbox.meta.name = "web";
    sandbox.meta.uid = kUid.text();
    sandbox.meta.generation = 1;
    sandbox.meta.finalizers = {api::kCleanupFinalizer};
    sandbox.meta.resource_version = kube::ResourceVersion("100");
    sandbox.uid = kUid;
    sandbox.spec.image = "debian-12";
    sandbox.status.node_name = "node-1";
    Put(sandbox);
    options_.node_name = "node-1";
    options_.inline_wait = 0ms;
    // Most tests count the steps of a boot.
    options_.boot_snapshots = BootSnapshots::kOff;
    Restart();
  }
  ~AgentTest() override { failpoint::DisarmAll(); }

  void Put(const api::Sandbox& sandbox) {
    control_plane_.live = sandbox;
    store_.Upsert({sandbox.meta.key(), sandbox.meta.uid, sandbox.meta.resource_version},
                  std::make_shared<api::Sandbox>(sandbox), false);
  }
  void Change(const std::function<void(api::Sandbox&)>& change) {
    api::Sandbox sandbox = *control_plane_.live;
    change(sandbox);
    sandbox.meta.resource_version = Next(sandbox.meta.resource_version);
    Put(sandbox);
  }
  void Wish(api::OperatingMode mode) {
    Change([mode](api::Sandbox& sandbox) {
      sandbox.spec.operating_mode = mode;
      ++sandbox.meta.generation;
    });
  }
  void Delete() {
    Change([](api::Sandbox& sandbox) { sandbox.meta.deletion_time = WallTime{} + 1h; });
  }

  // etcd as it was then, and the list of it that follows.
  void Restore(const api::Sandbox& snapshot) {
    control_plane_.live = snapshot;
    store_.BeginReplace();
    store_.Upsert({snapshot.meta.key(), snapshot.meta.uid, snapshot.meta.resource_version},
                  std::make_shared<api::Sandbox>(snapshot), true);
    store_.EndReplace(snapshot.meta.resource_version);
  }

  // What kill -9 and a new process are to the agent: memory gone, records and machine as they were.
  void Restart(const std::string& cluster_id = "cluster-1") {
    agent_.reset();
    machine_.ForgetAgent();
    records_ = std::make_unique<RecordStore>(paths_, cluster_id);
    templates_ = std::make_unique<TemplateStore>(paths_, cluster_id);
    agent_ = std::make_unique<Agent>(
        options_, machine_, *records_, *templates_, store_, control_plane_,
        [this](const std::string& uid) { enqueued_.push_back(uid); },
        [this](const std::string& uid) { changed_templates_.push_back(uid); }, clock_);
    ASSERT_TRUE(agent_->Adopt());
  }

  Result<kube::ReconcileResult> Reconcile(const api::SandboxUid& uid = kUid) {
    return agent_->Reconcile(uid.text());
  }
  // Until nothing more changes, as the queue would.
  void Settle() {
    for (int i = 0; i < 10; ++i) {
      (void)Reconcile();
      clock_.Advance(1s);
    }
  }
  FakeMachine::Vm& vm() { return machine_.vms[kUid]; }
  std::string Phase() { return control_plane_.live->status.phase; }
  std::string ReadyReason() {
    const auto* ready = api::FindCondition(control_plane_.live->status.conditions, "Ready");
    return ready == nullptr ? "" : ready->reason;
  }

  const host::ScratchDirectory directory_;
  Paths paths_;
  FakeClock clock_;
  FakeMachine machine_;
  kube::Store<api::Sandbox> store_;
  FakeControlPlane control_plane_;
  AgentOptions options_;
  std::vector<std::string> enqueued_, changed_templates_;
  std::unique_ptr<RecordStore> records_;
  std::unique_ptr<TemplateStore> templates_;
  std::unique_ptr<Agent> agent_;
};

}  // namespace dormouse
