#include "src/common/api/sandbox_node.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace dormouse::api {
namespace {

using nlohmann::json;

json MinimalNode() {
  return json::parse(R"({"apiVersion": "dormouse.dev/v1alpha1", "kind": "SandboxNode",
    "metadata": {"name": "n1", "uid": "aaaa0000-1111", "resourceVersion": "5", "labels": {"zone": "a"}}})");
}

TEST(SandboxNodeTest, TheStatusIsReadBackAsItWasWritten) {
  SandboxNodeStatus status;
  status.capacity = {16, 32LL << 30, 100LL << 30, 200, 2000};
  status.allocated = {3, 3LL << 29, 1000, 3, 1};
  status.hypervisor = "cloud-hypervisor";
  status.hypervisor_version = "53.0";
  status.kernel_version = "6.1.0";
  status.cpu_model = "EPYC";
  status.endpoint = "10.0.0.1:9443";
  status.file_system = "xfs";
  status.reflink = true;
  status.images = {{"debian-12", "9f86d081", 2LL << 30}, {"new", "", 1}};
  status.templates = {"uid-1"};
  SetCondition(&status.conditions, {"Ready", ConditionStatus::kTrue, "Ready", "", 1, {}},
               WallTime{std::chrono::seconds(1000)});
  json object = MinimalNode();
  object["status"] = SandboxNodeStatusToJson(status);
  EXPECT_EQ(object["status"]["images"][0]["digest"], "sha256:9f86d081");
  const auto node = ParseSandboxNode(object);
  ASSERT_TRUE(node) << node.error().message();
  EXPECT_EQ(node->status, status);
}

TEST(SandboxNodeTest, ReadsWhatPeopleSet) {
  json object = MinimalNode();
  object["spec"] =
      json::parse(R"({"unschedulable": true, "taints": [{"key": "k", "effect": "NoSchedule"}]})");
  const auto node = ParseSandboxNode(object);
  ASSERT_TRUE(node) << node.error().message();
  EXPECT_TRUE(node->unschedulable);
  EXPECT_EQ(node->taints, (std::vector<Taint>{{"k", "", "NoSchedule"}}));
  EXPECT_EQ(node->meta.labels.at("zone"), "a");
}

TEST(SandboxNodeTest, AnErrorNamesTheField) {
  json object = MinimalNode();
  object["status"] = {{"capacity", {{"memory", "much"}}}};
  EXPECT_EQ(ParseSandboxNode(object).error().message().find("status.capacity.memory: "), 0U);
  object["status"] = {{"images", {{{"digest", "x"}}}}};
  EXPECT_EQ(ParseSandboxNode(object).error().message().find("status.images[0].name: "), 0U);
}

}  // namespace
}  // namespace dormouse::api
