#include "src/common/api/spec_check.h"

#include <gtest/gtest.h>

namespace dormouse::api {
namespace {

SandboxSpec Spec() {
  SandboxSpec spec;
  spec.image = "debian-12";
  return spec;
}

std::string Refusal(const SandboxSpec& spec) {
  const auto checked = CheckSpec(spec);
  return checked ? "" : checked.error().message();
}

TEST(ImageNameTest, IsAnyNameThatVendorsGiveTheirImages) {
  for (const char* good : {"debian-12", "ubuntu-24.04", "debian_12", "a..b", "A",
                           "Fedora-Cloud-Base-Generic.x86_64-40-1.14"}) {
    EXPECT_TRUE(IsImageName(good)) << good;
  }
  EXPECT_TRUE(IsImageName(std::string(251, 'a'))) << "with .img it is a file's name";
}

TEST(ImageNameTest, NoPathCanBeMadeOfIt) {
  for (const char* bad :
       {"", ".", "..", ".hidden", "../etc", "a/b", "-a", "a.", "a_", "a b", "\xc3\xbc"}) {
    EXPECT_FALSE(IsImageName(bad)) << bad;
  }
  EXPECT_FALSE(IsImageName(std::string("a\0b", 3)));
  EXPECT_FALSE(IsImageName(std::string(252, 'a')));
}

TEST(SpecCheckTest, WhatAGuestCannotBeSentIsRefusedByItsField) {
  SandboxSpec spec = Spec();
  spec.workload.command = {"sh"};
  spec.workload.args = {std::string(16000, 'x'), std::string(kMaxWordsBytes - 16002, 'x')};
  EXPECT_EQ(Refusal(spec), "");
  spec.workload.args.back() += 'x';
  EXPECT_EQ(Refusal(spec), "spec.args: must be at most 24 KiB, together with command");
  spec.workload.args = {std::string(kMaxWordsBytes / 3, '\x1b')};
  EXPECT_NE(Refusal(spec), "") << "JSON writes each as six bytes";
  spec.workload.args.clear();
  spec.workload.env = {{"A", std::string(16000, 'x')}, {"B", std::string(8575, 'x')}};
  EXPECT_EQ(Refusal(spec), "spec.env: must be at most 24 KiB in all");
  spec.workload.env.back().value.pop_back();
  EXPECT_EQ(Refusal(spec), "");
}

TEST(SpecCheckTest, LengthsAreCountedInCharactersAndWeightsInBytes) {
  SandboxSpec spec = Spec();
  spec.node_selector["k"] = std::string(63, 'x');
  EXPECT_EQ(Refusal(spec), "");
  std::string umlauts;
  for (int i = 0; i < 63; ++i) umlauts += "\xc3\xbc";
  spec.node_selector["k"] = umlauts;
  EXPECT_EQ(Refusal(spec), "");
  spec.node_selector["k"] += "x";
  EXPECT_EQ(Refusal(spec), "spec.nodeSelector.k: must be at most 63 characters");
  EXPECT_EQ(WeightOf(umlauts), 126U);
  EXPECT_EQ(WeightOf("a\tb\n"), 4U);
  EXPECT_EQ(WeightOf("\x1b[0m"), 12U);
}

TEST(SpecCheckTest, AnAddressRangeIsWrittenByItsFirstAddress) {
  SandboxSpec spec = Spec();
  for (const char* good : {"0.0.0.0/0", "203.0.113.7/32", "10.0.0.0/8", "::/0", "2001:db8::/32"}) {
    spec.network.allow_cidrs = {good};
    EXPECT_EQ(Refusal(spec), "") << good;
  }
  for (const char* bad :
       {"10.0.0.1", "10.1.0.0/8", "10.0.0.0/08", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8",
        "010.0.0.0/8", "2001:db8::1/32", "::ffff:10.0.0.0/104", "fe80::%1/64", "/8", "a/8"}) {
    spec.network.allow_cidrs = {bad};
    EXPECT_NE(Refusal(spec), "") << bad;
  }
}

}  // namespace
}  // namespace dormouse::api
