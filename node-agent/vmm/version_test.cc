#include "node-agent/vmm/version.h"

#include <gtest/gtest.h>

namespace dormouse::vmm {
namespace {

TEST(VersionTest, EveryFormOfTheVersionLineIsRead) {
  const struct {
    const char* output;
    const char* number;
    const char* build;
  } cases[] = {
      {"cloud-hypervisor v53.0\nMigration Protocol Versions: 0\n", "53.0", "v53.0"},
      {"cloud-hypervisor v53.0-dirty\n", "53.0", "v53.0-dirty"},
      {"cloud-hypervisor v53.0.0", "53.0", "v53.0.0"},
      {"cloud-hypervisor v52.1-12-gabcdef0-dirty-EXTRA\n", "52.1", "v52.1-12-gabcdef0-dirty-EXTRA"},
      {"cloud-hypervisor v53.0 (fake)\n", "53.0", "v53.0 (fake)"},
  };
  for (const auto& c : cases) {
    const auto version = ParseVersionOutput(c.output);
    ASSERT_TRUE(version) << c.output;
    EXPECT_EQ(version->Short(), c.number);
    EXPECT_EQ(version->build, c.build);
  }
}

TEST(VersionTest, WhatIsNoVersionIsRefused) {
  for (const char* output :
       {"", "\n", "firecracker v1.7.0", "cloud-hypervisor", "cloud-hypervisor v53",
        "cloud-hypervisor v53.", "cloud-hypervisor v-1.0", "cloud-hypervisor v53.0x",
        "cloud-hypervisor v99999999999.0", "cloud-hypervisor v53.0 \x1b[31m"}) {
    EXPECT_FALSE(ParseVersionOutput(output)) << output;
  }
  EXPECT_FALSE(ParseVersionOutput("cloud-hypervisor v53.0 " + std::string(300, 'x')));
}

TEST(VersionTest, OnlyProvenVersionsGetTheFastPath) {
  EXPECT_EQ(*Admit({53, 0, "v53.0"}), Admission::kFull);
  EXPECT_EQ(*Admit({53, 1, "v53.1"}), Admission::kStockOnly);
  EXPECT_EQ(*Admit({52, 0, "v52.0"}), Admission::kStockOnly);
  for (const unsigned major : {0u, 45u, 51u, 54u, 100u}) {
    const auto refused = Admit({major, 0, "vX"});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::kUnsupported);
    EXPECT_NE(refused.error().message().find(std::to_string(major) + ".0"), std::string::npos);
  }
}

}  // namespace
}  // namespace dormouse::vmm
