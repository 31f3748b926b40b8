#include "src/common/api/sandbox.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace dormouse::api {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

json MinimalSandbox() {
  return json::parse(R"({
    "apiVersion": "dormouse.dev/v1alpha1", "kind": "Sandbox",
    "metadata": {"name": "web", "namespace": "team", "uid": "3f2a0000-1111-2222-3333-444455556666",
                 "resourceVersion": "12", "generation": 3},
    "spec": {"source": {"image": {"name": "debian-12"}}}})");
}

std::string ErrorOf(const json& object) {
  const auto parsed = ParseSandbox(object);
  return parsed ? "" : parsed.error().message();
}

TEST(SandboxTest, WhatIsLeftOutHasItsDefault) {
  const auto sandbox = ParseSandbox(MinimalSandbox());
  ASSERT_TRUE(sandbox) << sandbox.error().message();
  EXPECT_EQ(sandbox->meta.key().ToString(), "team/web");
  EXPECT_EQ(sandbox->spec.image, "debian-12");
  EXPECT_EQ(sandbox->EffectiveResources(), (Resources{1, 512LL << 20}));
  EXPECT_FALSE(sandbox->spec.resources);
  EXPECT_FALSE(sandbox->spec.disk_bytes);
  EXPECT_EQ(sandbox->spec.operating_mode, OperatingMode::kRunning);
  EXPECT_EQ(RestartPolicyOf(sandbox->spec, /*has_workload=*/true), RestartPolicy::kNever);
  EXPECT_EQ(RestartPolicyOf(sandbox->spec, /*has_workload=*/false), RestartPolicy::kAlways);
  EXPECT_EQ(sandbox->spec.termination_grace, std::chrono::seconds(30));
  EXPECT_TRUE(sandbox->spec.boot_snapshot);
  EXPECT_EQ(sandbox->spec.network.egress, Egress::kRestricted);
  EXPECT_TRUE(sandbox->spec.workload.empty());
  EXPECT_EQ(sandbox->status, SandboxStatus{});
}

TEST(SandboxTest, ReadsAllThatAUserWrote) {
  json object = MinimalSandbox();
  object["spec"] = json::parse(R"({
    "source": {"snapshotTemplate": {"name": "warm"}},
    "resources": {"cpu": 2}, "disk": {"size": "5Gi"},
    "command": ["/bin/app"], "args": ["-v", ""], "env": [{"name": "A", "value": "1"}, {"name": "B"}],
    "workingDir": "/srv", "user": "app", "operatingMode": "Suspended", "restartPolicy": "OnFailure",
    "dns": {"nameservers": ["9.9.9.9"], "searches": ["a.example"], "options": ["ndots:2"]},
    "bootSnapshot": "Never", "somethingNew": {"x": 1},
    "network": {"egress": "None", "allow": [{"cidr": "203.0.113.0/24"}], "deny": [{"cidr": "2001:db8::/32"}],
                "ports": [{"name": "http", "port": 8080}]},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}, {"key": "l", "value": "v"}]})");
  const auto sandbox = ParseSandbox(object);
  ASSERT_TRUE(sandbox) << sandbox.error().message();
  const SandboxSpec& spec = sandbox->spec;
  EXPECT_EQ(spec.snapshot_template, "warm");
  EXPECT_EQ(spec.asked.vcpus, 2);
  EXPECT_EQ(spec.asked.memory_bytes, std::nullopt);
  EXPECT_EQ(spec.resources, (Resources{2, 512LL << 20}));
  EXPECT_EQ(spec.disk_bytes, 5LL << 30);
  EXPECT_EQ(spec.workload,
            (Workload{{"/bin/app"}, {"-v", ""}, {{"A", "1"}, {"B", ""}}, "/srv", "app"}));
  EXPECT_EQ(spec.dns, (DnsSpec{{"9.9.9.9"}, {"a.example"}, {"ndots:2"}}));
  EXPECT_EQ(spec.operating_mode, OperatingMode::kSuspended);
  EXPECT_EQ(spec.restart_policy, RestartPolicy::kOnFailure);
  EXPECT_FALSE(spec.boot_snapshot);
  EXPECT_EQ(
      spec.network,
      (NetworkSpec{Egress::kNone, {"203.0.113.0/24"}, {"2001:db8::/32"}, {{"http", 8080, "TCP"}}}));
  EXPECT_EQ(spec.node_selector, (std::map<std::string, std::string>{{"disk", "fast"}}));
  EXPECT_EQ(spec.tolerations,
            (std::vector<Toleration>{{"k", "Exists", "", "NoSchedule"}, {"l", "Equal", "v", ""}}));
}

TEST(SandboxTest, AnErrorNamesTheField) {
  const std::vector<std::pair<const char*, const char*>> table = {
      {R"({"source": null})", "spec.source: must have exactly one of"},
      {R"({"source": {"image": {"name": 1}}})", "spec.source.image.name: must be a string"},
      {R"({"source": {"image": {"name": "a"}, "snapshotTemplate": {"name": "b"}}})",
       "spec.source: must have"},
      {R"({"resources": {"cpu": 0}})", "spec.resources.cpu: must be a whole number from 1 to 64"},
      {R"({"resources": {"cpu": "2"}})", "spec.resources.cpu: must be a whole number"},
      {R"({"resources": {"cpu": 18446744073709551615}})",
       "spec.resources.cpu: must be a whole number"},
      {R"({"resources": {"memory": "lots"}})",
       "spec.resources.memory: must be an amount of memory from 64Mi to 16Ti"},
      {R"({"resources": {"memory": "1Mi"}})",
       "spec.resources.memory: must be an amount of memory from 64Mi to 16Ti"},
      {R"({"resources": 3})", "spec.resources: must be an object"},
      {R"({"disk": {"size": "-5Gi"}})",
       "spec.disk.size: must be an amount of storage from 1Mi to 64Ti"},
      {R"({"command": "sh"})", "spec.command: must be a list"},
      {R"({"command": ["a", 2]})", "spec.command[1]: must be a string"},
      {R"({"env": [{"name": "A"}, {"value": "x"}]})", "spec.env[1].name: must not be empty"},
      {R"({"operatingMode": "Sleeping"})",
       "spec.operatingMode: must be one of Running, Suspended, Stopped, not \"Sleeping\""},
      {R"({"restartPolicy": "Perhaps"})", "spec.restartPolicy: must be one of"},
      {R"({"network": {"egress": "All"}})",
       "spec.network.egress: must be one of Restricted, Open, None"},
      {R"({"network": {"ports": [{"name": "x", "port": 70000}]}})",
       "spec.network.ports[0].port: must be a whole"},
      {R"({"network": {"allow": [{}]}})", "spec.network.allow[0].cidr: must be an address range"},
      {R"({"nodeSelector": {"a": 1}})", "spec.nodeSelector.a: must be a string"},
      {R"({"tolerations": ["x"]})", "spec.tolerations[0]: must be an object"},
  };
  for (const auto& [patch, message] : table) {
    json object = MinimalSandbox();
    object["spec"].merge_patch(json::parse(patch));
    EXPECT_EQ(ErrorOf(object).substr(0, std::string(message).size()), message) << patch;
    EXPECT_EQ(ParseSandbox(object).error().code(), ErrorCode::kInvalid) << patch;
  }
}

TEST(SandboxTest, MemoryIsRoundedUpToWholeMiB) {
  const std::vector<std::pair<const char*, int64_t>> table = {
      {"300M", 287},    {"0.3Gi", 308}, {"268435457", 257},  {"256Mi", 256},
      {"67108864", 64}, {"1e9", 954},   {"16Ti", 16LL << 20}};
  for (const auto& [memory, mib] : table) {
    json object = MinimalSandbox();
    object["spec"]["resources"] = {{"memory", memory}};
    const auto sandbox = ParseSandbox(object);
    ASSERT_TRUE(sandbox) << memory;
    EXPECT_EQ(sandbox->EffectiveResources().memory_bytes, mib << 20) << memory;
    EXPECT_EQ(sandbox->spec.asked.memory_bytes, mib << 20) << memory;
  }
  for (const auto& wrong :
       std::vector<json>{"67108863", "67108863.5", "17592186044416.5", 536870912}) {
    json object = MinimalSandbox();
    object["spec"]["resources"] = {{"memory", wrong}};
    EXPECT_EQ(ErrorOf(object).substr(0, 22), "spec.resources.memory:") << wrong;
  }
}

TEST(SandboxTest, InstantsAndDurationsAreReadAsTheSchemaHasThem) {
  json object = MinimalSandbox();
  object["spec"]["idle"] = {{"timeout", "1h30m10s"}};
  object["spec"]["lifecycle"] = {{"shutdownTime", "2030-01-02T15:04:05.5+09:00"},
                                 {"ttlAfterFinished", "0s"}};
  const auto sandbox = ParseSandbox(object);
  ASSERT_TRUE(sandbox) << sandbox.error().message();
  EXPECT_EQ(sandbox->spec.idle->timeout, 5410s);
  EXPECT_EQ(*sandbox->spec.lifecycle.shutdown_time,
            WallTime(std::chrono::sys_days(std::chrono::year(2030) / 1 / 2)) + 6h + 4min + 5500ms);
  EXPECT_EQ(sandbox->spec.lifecycle.ttl_after_finished, 0s);
  for (const char* bad : {"0s", "1.5h", "100ms", "10", "", "1m1h", "1000000h"}) {
    object["spec"]["idle"]["timeout"] = bad;
    EXPECT_EQ(ErrorOf(object).substr(0, 18), "spec.idle.timeout:") << bad;
  }
  object["spec"].erase("idle");
  for (const char* bad : {"9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z", "2030-01-02T15:04:60Z",
                          "2030-01-02T15:04:05z", "2030-02-30T15:04:05Z", "tomorrow", ""}) {
    object["spec"]["lifecycle"]["shutdownTime"] = bad;
    EXPECT_EQ(ErrorOf(object).substr(0, 28), "spec.lifecycle.shutdownTime:") << bad;
  }
}

TEST(SandboxTest, WhatIsNoSandboxIsCorrupt) {
  json other = MinimalSandbox();
  other["kind"] = "Pod";
  EXPECT_EQ(ParseSandbox(other).error().code(), ErrorCode::kCorrupt);
  EXPECT_EQ(ParseSandbox(json(1)).error().code(), ErrorCode::kCorrupt);
  json path = MinimalSandbox();
  path["metadata"]["uid"] = "../../etc/passwd";
  EXPECT_EQ(ParseSandbox(path).error().code(), ErrorCode::kInvalid);
  json item = MinimalSandbox();
  item.erase("kind");
  EXPECT_TRUE(ParseSandbox(item)) << "items of a list carry no kind";
}

SandboxStatus FullStatus() {
  SandboxStatus status;
  status.observed_generation = 3;
  status.phase = phase::kRunning;
  SetCondition(&status.conditions, {"Ready", ConditionStatus::kTrue, "Ready", "", 3, {}},
               WallTime{1000s});
  status.resources = Resources{2, 1LL << 30};
  status.exit_code = 137;
  status.started_at = WallTime{1001s};
  status.suspended_at = WallTime{1002s};
  status.finished_at = WallTime{1003s};
  status.restart_count = 4;
  status.network = {"10.0.0.1", "169.254.1.1", "169.254.0.21"};
  status.vm = {"cloud-hypervisor", "53.0", "Boot", 480ms};
  status.snapshot = SandboxStatus::Snapshot{
      1 << 20, 4096, 35ms, 7, CaptureStages{11ms, 12ms, 13ms, 14ms, 15ms, 16ms, 17ms}};
  status.storage = SandboxStatus::Storage{4096, 1};
  return status;
}

TEST(SandboxTest, TheAgentsStatusIsReadBackAsItWasWritten) {
  json object = MinimalSandbox();
  object["status"] = AgentStatusToJson(FullStatus());
  const auto sandbox = ParseSandbox(object);
  ASSERT_TRUE(sandbox) << sandbox.error().message();
  EXPECT_EQ(sandbox->status, FullStatus());
}

TEST(SandboxTest, EachWriterSendsOnlyItsOwnFields) {
  SandboxStatus status = FullStatus();
  status.node_name = "node-1";
  SetCondition(&status.conditions, {"Scheduled", ConditionStatus::kTrue, "Scheduled", "", 3, {}},
               WallTime{1s});
  SetCondition(&status.conditions, {"GuestReady", ConditionStatus::kTrue, "Ready", "", 3, {}},
               WallTime{1s});
  const json agent = AgentStatusToJson(status);
  EXPECT_FALSE(agent.contains("nodeName"));
  EXPECT_FALSE(agent.contains("idleDeadline"));
  EXPECT_EQ(agent["conditions"].size(), 2U);
  for (const json& condition : agent["conditions"]) EXPECT_NE(condition["type"], "Scheduled");
  const json controller = ControllerStatusToJson(status);
  EXPECT_EQ(controller.size(), 3U);
  EXPECT_EQ(controller["nodeName"], "node-1");
  EXPECT_EQ(controller["phase"], "Running");
  EXPECT_EQ(controller["conditions"].size(), 2U);
  for (const json& condition : controller["conditions"]) EXPECT_NE(condition["type"], "GuestReady");
}

TEST(SandboxTest, AStatusWriteNamesTheVersionThatWasChecked) {
  const auto sandbox = ParseSandbox(MinimalSandbox());
  const json body =
      json::parse(StatusApplyBody("Sandbox", sandbox->meta, json{{"phase", "Pending"}}));
  EXPECT_EQ(body, json::parse(R"({"apiVersion": "dormouse.dev/v1alpha1", "kind": "Sandbox",
    "metadata": {"name": "web", "namespace": "team", "resourceVersion": "12"}, "status": {"phase": "Pending"}})"));
}

}  // namespace
}  // namespace dormouse::api
