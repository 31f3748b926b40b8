#include "node-agent/serve/agent_metrics.h"

#include <gtest/gtest.h>

#include <string>

namespace dormouse {
namespace {

class ListedView : public AgentView {
 public:
  std::vector<SandboxSummary> List() const override { return sandboxes; }
  Result<std::string> Show(const kube::ObjectKey&) const override {
    return Fail(ErrorCode::kNotFound, "");
  }
  Result<GuestAccess> Guest(const kube::ObjectKey&) const override {
    return Fail(ErrorCode::kNotFound, "");
  }
  Result<std::string> ConsoleTail(const kube::ObjectKey&, size_t) const override {
    return std::string();
  }
  Result<std::vector<Leak>> Sweep(bool) override { return std::vector<Leak>(); }
  std::vector<SandboxSummary> sandboxes;
};

SandboxSummary Running(const std::string& uid, int restarts) {
  SandboxSummary sandbox;
  sandbox.uid = uid;
  sandbox.phase = "Running";
  sandbox.running = true;
  sandbox.vcpus = 2;
  sandbox.memory_bytes = 1000;
  sandbox.disk_allocated_bytes = 500;
  sandbox.restart_count = restarts;
  return sandbox;
}

bool Has(const metrics::Registry& registry, const std::string& line) {
  return ("\n" + registry.Text()).find("\n" + line + "\n") != std::string::npos;
}

TEST(AgentMetricsTest, SandboxesAreCountedWhenAsked) {
  ListedView view;
  metrics::Registry registry;
  RegisterAgentMetrics(registry, view);
  EXPECT_TRUE(Has(registry, "dormouse_sandboxes{phase=\"Running\"} 0")) << registry.Text();
  view.sandboxes = {Running("a", 0), Running("b", 0)};
  SandboxSummary odd;
  odd.phase = "SomethingNewer";
  view.sandboxes.push_back(odd);
  EXPECT_TRUE(Has(registry, "dormouse_sandboxes{phase=\"Running\"} 2"));
  EXPECT_TRUE(Has(registry, "dormouse_sandboxes{phase=\"Unknown\"} 1"));
  EXPECT_TRUE(Has(registry, "dormouse_sandboxes_running 2"));
  EXPECT_TRUE(Has(registry, "dormouse_sandboxes_vcpus 4"));
  EXPECT_TRUE(Has(registry, "dormouse_sandboxes_memory_bytes 2000"));
  EXPECT_TRUE(Has(registry, "dormouse_sandboxes_disk_allocated_bytes 1000"));
}

TEST(AgentMetricsTest, RestartsOnlyGoUp) {
  ListedView view;
  metrics::Registry registry;
  RegisterAgentMetrics(registry, view);
  view.sandboxes = {Running("there-before", 7)};
  EXPECT_TRUE(Has(registry, "dormouse_sandbox_restarts_total 0")) << "those were before this agent";
  view.sandboxes = {Running("there-before", 9), Running("new", 1)};
  EXPECT_TRUE(Has(registry, "dormouse_sandbox_restarts_total 3"));
  view.sandboxes = {Running("new", 1)};
  EXPECT_TRUE(Has(registry, "dormouse_sandbox_restarts_total 3"));
}

}  // namespace
}  // namespace dormouse
