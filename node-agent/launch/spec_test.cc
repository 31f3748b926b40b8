#include "node-agent/launch/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dormouse::launch {
namespace {

using ::testing::HasSubstr;

Spec Example() {
  Spec spec;
  spec.command = {"/vmm/cloud-hypervisor", "--api-socket", "path=/run/vm/api.sock", ""};
  spec.uid = 100017;
  spec.gid = 100017;
  spec.mount_point = "/run/dormouse/root";
  spec.binds = {{"/run/dormouse/vm/3f2a", "/run/vm", true, false},
                {"/opt/vmm = 1", "/vmm/cloud-hypervisor", false, true}};
  spec.devices = {{"/dev/disk", 253, 7, true}};
  spec.host_mounts = true;
  spec.max_open_files = 1024;
  spec.max_file_bytes = uint64_t{5} << 30;
  spec.oom_score_adjust = -100;
  return spec;
}

TEST(SpecTest, ReadsWhatWasWritten) {
  std::string text;
  std::string error;
  ASSERT_TRUE(FormatSpec(Example(), &text, &error)) << error;
  Spec read;
  ASSERT_TRUE(ParseSpec(text, &read, &error)) << error;
  EXPECT_EQ(read, Example());
}

TEST(SpecTest, RefusesWhatWouldForgeALine) {
  Spec spec = Example();
  spec.command.push_back("x\nuid=0");
  std::string text;
  std::string error;
  EXPECT_FALSE(FormatSpec(spec, &text, &error));
  EXPECT_THAT(error, HasSubstr("newline"));
}

TEST(SpecTest, RefusesUnknownMissingAndMalformed) {
  std::string good;
  std::string error;
  ASSERT_TRUE(FormatSpec(Example(), &good, &error));
  Spec spec;
  EXPECT_FALSE(ParseSpec("", &spec, &error));
  EXPECT_FALSE(ParseSpec(good.substr(0, good.size() - 1), &spec, &error)) << "cut off";
  EXPECT_FALSE(ParseSpec(good + "shell=/bin/sh\n", &spec, &error));
  EXPECT_THAT(error, HasSubstr("shell=/bin/sh"));
  EXPECT_FALSE(ParseSpec(good + "uid=0\n", &spec, &error)) << "root";
  EXPECT_FALSE(ParseSpec(good + "uid=12x\n", &spec, &error));
  EXPECT_FALSE(ParseSpec(good + "bind=/etc\t/a/../b\t0\t0\n", &spec, &error)) << "leaves its root";
  EXPECT_FALSE(ParseSpec(good + "device=/etc/x\t1\t3\t0\n", &spec, &error)) << "not below /dev";
  EXPECT_FALSE(ParseSpec("dormouse-launch 2\n" + good.substr(good.find('\n') + 1), &spec, &error));
}

}  // namespace
}  // namespace dormouse::launch
