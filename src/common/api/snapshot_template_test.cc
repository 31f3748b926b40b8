#include "src/common/api/snapshot_template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace dormouse::api {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

json MinimalTemplate() {
  return json::parse(R"({"kind": "SnapshotTemplate",
    "metadata": {"name": "warm", "namespace": "team", "uid": "aaaa0000-1111", "resourceVersion": "5"},
    "spec": {"source": {"sandbox": {"name": "s1"}}}})");
}

TEST(SnapshotTemplateTest, ReadsWherePlacementLooks) {
  json object = MinimalTemplate();
  object["status"] =
      json::parse(R"({"nodeName": "n1", "phase": "Ready", "readyToUse": true, "sourceUID": "u1",
    "nodes": ["n1", "n2"], "resources": {"cpu": 2, "memory": "1Gi"}})");
  const auto result = ParseSnapshotTemplate(object);
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(result->source, "s1");
  EXPECT_EQ(result->status.node_name, "n1");
  EXPECT_EQ(result->status.phase, "Ready");
  EXPECT_TRUE(result->status.ready_to_use);
  EXPECT_EQ(result->status.source_uid, "u1");
  EXPECT_EQ(result->status.nodes, (std::vector<std::string>{"n1", "n2"}));
  EXPECT_EQ(result->status.resources, (Resources{2, 1LL << 30}));
}

TEST(SnapshotTemplateTest, WhatIsLeftOutHasItsDefault) {
  const auto result = ParseSnapshotTemplate(MinimalTemplate());
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(result->source_after_capture, SourceAfterCapture::kResume);
  EXPECT_EQ(result->failure_deadline, 5min);
  EXPECT_EQ(result->ttl, 0s);
  EXPECT_EQ(result->deletion_policy, DeletionPolicy::kDelete);
  EXPECT_EQ(result->status, SnapshotTemplateStatus{});
}

TEST(SnapshotTemplateTest, ReadsAllThatAUserWrote) {
  json object = MinimalTemplate();
  object["spec"].update(json::parse(R"({"sourceAfterCapture": "Suspend", "failureDeadline": "90s",
    "ttl": "24h", "deletionPolicy": "Retain"})"));
  auto result = ParseSnapshotTemplate(object);
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(result->source_after_capture, SourceAfterCapture::kSuspend);
  EXPECT_EQ(result->failure_deadline, 90s);
  EXPECT_EQ(result->ttl, 24h);
  EXPECT_EQ(result->deletion_policy, DeletionPolicy::kRetain);
  object["spec"]["sourceAfterCapture"] = "Delete";
  result = ParseSnapshotTemplate(object);
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(result->source_after_capture, SourceAfterCapture::kDelete);
}

SnapshotTemplateStatus Whole() {
  SnapshotTemplateStatus status;
  status.observed_generation = 3;
  status.phase = template_phase::kReady;
  status.ready_to_use = true;
  status.creation_time = WallTime{1000s};
  status.error = SnapshotTemplateStatus::Failure{WallTime{900s}, "the first try failed"};
  status.source_uid = "u1";
  status.nodes = {"n1", "n2"};
  status.references = 2;
  status.memory_bytes = 1LL << 30;
  status.disk_bytes = 5LL << 30;
  status.allocated_bytes = 300LL << 20;
  status.pause_window = 35ms;
  status.resources = Resources{2, 1LL << 30};
  status.compatibility = SnapshotTemplateStatus::Compatibility{
      "cloud-hypervisor", "53.0", "1", "AMD EPYC", "sha256:aa", "sha256:bb", "0.4.0"};
  status.conditions = {
      {condition::kReady, ConditionStatus::kTrue, "Ready", "captured", 3, WallTime{1000s}},
      {condition::kInUse, ConditionStatus::kTrue, "InUse", "by web", 3, WallTime{1001s}}};
  return status;
}

TEST(SnapshotTemplateTest, WhatTheAgentSendsIsWhatIsRead) {
  json object = MinimalTemplate();
  object["status"] = AgentStatusToJson(Whole());
  const auto result = ParseSnapshotTemplate(object);
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(result->status, Whole());
  EXPECT_EQ(object["status"]["pauseWindow"], "35ms");
  EXPECT_EQ(object["status"]["resources"]["memory"], "1Gi");
  EXPECT_EQ(object["status"]["creationTime"], "1970-01-01T00:16:40Z");
}

TEST(SnapshotTemplateTest, TheAgentLeavesOutWhatItDoesNotKnowButAlwaysCounts) {
  SnapshotTemplateStatus status;
  status.node_name = "n1";
  EXPECT_EQ(AgentStatusToJson(status), json::parse(R"({"readyToUse": false, "references": 0,
    "conditions": []})"))
      << "nodeName is the controller's";
}

TEST(SnapshotTemplateTest, TheControllerSendsOnlyWhatIsIts) {
  SnapshotTemplateStatus status = Whole();
  status.node_name = "n1";
  status.phase = template_phase::kFailed;
  const json sent = ControllerStatusToJson(status);
  EXPECT_EQ(sent["nodeName"], "n1");
  EXPECT_EQ(sent["phase"], "Failed");
  EXPECT_EQ(sent["error"],
            (json{{"time", "1970-01-01T00:15:00Z"}, {"message", "the first try failed"}}));
  ASSERT_EQ(sent["conditions"].size(), 1U);
  EXPECT_EQ(sent["conditions"][0]["type"], "Ready");
  EXPECT_EQ(sent.size(), 4U) << sent.dump();
  EXPECT_EQ(ControllerStatusToJson(SnapshotTemplateStatus{}), json::parse(R"({"conditions": []})"));
}

TEST(SnapshotTemplateTest, AFormatVersionMayBeANumber) {
  json object = MinimalTemplate();
  object["status"] = {{"compatibility", {{"formatVersion", 2}}}};
  const auto result = ParseSnapshotTemplate(object);
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_EQ(result->status.compatibility->format_version, "2");
}

TEST(SnapshotTemplateTest, AnErrorNamesTheField) {
  json object = MinimalTemplate();
  object["status"] = {{"readyToUse", "yes"}};
  EXPECT_EQ(ParseSnapshotTemplate(object).error().message(),
            "status.readyToUse: must be true or false");
  object = MinimalTemplate();
  object["spec"] = json::object();
  EXPECT_EQ(
      ParseSnapshotTemplate(object).error().message(),
      "spec.source.sandbox.name: must be the name of a Sandbox in this namespace, such as s1");
  object = MinimalTemplate();
  object["spec"]["ttl"] = "soon";
  EXPECT_EQ(ParseSnapshotTemplate(object).error().message(),
            "spec.ttl: must be a duration, such as 10m or 1h30m");
  object = MinimalTemplate();
  object["spec"]["sourceAfterCapture"] = "Explode";
  EXPECT_EQ(ParseSnapshotTemplate(object).error().message(),
            "spec.sourceAfterCapture: must be one of Resume, Suspend, Delete, not \"Explode\"");
}

}  // namespace
}  // namespace dormouse::api
