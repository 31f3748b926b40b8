#include "guest-agent/init/kernel_args.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

namespace dormouse::guest {
namespace {

TEST(KernelArgsTest, ADormouseCommandLineIsRead) {
  const auto args = ParseKernelArgs(
      "root=/dev/vda rw console=ttyS0 panic=-1 quiet rootflags=noatime "
      "ip=169.254.0.21::169.254.0.22:255.255.255.252:sandbox:eth0:off\n");
  ASSERT_TRUE(args) << args.error().message();
  EXPECT_EQ(args->root, "/dev/vda");
  EXPECT_EQ(args->root_flags, "noatime");
  EXPECT_FALSE(args->read_only);
  EXPECT_EQ(args->panic, -1);
  ASSERT_TRUE(args->network);
  EXPECT_EQ(args->network->address, inet_addr("169.254.0.21"));
  EXPECT_EQ(args->network->gateway, inet_addr("169.254.0.22"));
  EXPECT_EQ(args->network->mask, inet_addr("255.255.255.252"));
  EXPECT_EQ(args->network->hostname, "sandbox");
  EXPECT_EQ(args->network->interface, "eth0");
}

TEST(KernelArgsTest, NothingSaidIsTheFirstDiskAndNoNetwork) {
  const auto args = ParseKernelArgs("");
  ASSERT_TRUE(args);
  EXPECT_EQ(args->root, "/dev/vda");
  EXPECT_FALSE(args->network);
  EXPECT_FALSE(args->panic);
}

TEST(KernelArgsTest, WordsAfterTheDoubleDashAreNotOurs) {
  EXPECT_EQ(ParseKernelArgs("ro -- root=/dev/evil rw")->root, "/dev/vda");
  EXPECT_TRUE(ParseKernelArgs("ro -- rw")->read_only);
}

TEST(KernelArgsTest, IpIsReadOrRefusedWhole) {
  const struct {
    const char* value;
    bool good;
  } cases[] = {
      {"10.0.0.2::10.0.0.1:255.255.255.0:h:eth0:off", true},
      {"10.0.0.2:::255.255.255.0", true},
      {"10.0.0.2:::255.255.255.0::eth1", true},
      {"10.0.0.2:::0.0.0.0::eth1:none", true},
      {"10.0.0.2:::255.255.255.255::eth1", true},
      {"", false},
      {"dhcp", false},
      {"10.0.0.2", false},
      {"10.0.0.2:::255.0.255.0", false},
      {"10.0.0.256:::255.255.255.0", false},
      {"10.0.0.2::nowhere:255.255.255.0", false},
      {"10.0.0.2:::255.255.255.0::eth0:dhcp", false},
      {"10.0.0.2:::255.255.255.0::an-interface-name-too-long:off", false},
      {"fd00::1:::64", false},
  };
  for (const auto& test : cases)
    EXPECT_EQ(ParseIpArg(test.value).has_value(), test.good) << test.value;
}

TEST(KernelArgsTest, WhatMakesNoSenseIsSaidByName) {
  for (const char* line : {"root=UUID=1234", "ip=what"}) {
    const auto args = ParseKernelArgs(line);
    ASSERT_FALSE(args) << line;
    EXPECT_NE(args.error().message().find(line), std::string::npos) << args.error().message();
  }
}

}  // namespace
}  // namespace dormouse::guest
