#include "src/common/api/snapshot_template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace dormouse::api {
namespace {

using nlohmann::json;

json Minimal() {
  return json::parse(R"({"kind": "SnapshotTemplate",
    "metadata": {"name": "warm", "namespace": "team", "uid": "aaaa0000-1111", "resourceVersion": "5"},
    "spec": {"source": {"sandbox": {"name": "s1"}}}})");
}

TEST(SnapshotTemplateTest, ReadsWherePlacementLooks) {
  json object = Minimal();
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

TEST(SnapshotTemplateTest, AnErrorNamesTheField) {
  json object = Minimal();
  object["status"] = {{"readyToUse", "yes"}};
  EXPECT_EQ(ParseSnapshotTemplate(object).error().message(),
            "status.readyToUse: must be true or false");
  object = Minimal();
  object["spec"] = json::object();
  EXPECT_EQ(ParseSnapshotTemplate(object).error().message(),
            "spec.source.sandbox.name: must not be empty");
}

}  // namespace
}  // namespace dormouse::api
