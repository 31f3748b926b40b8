#include "node-agent/vmm/command_line.h"

#include <gtest/gtest.h>

namespace dormouse::vmm {
namespace {

CommandSpec WholeCommand() {
  return {"/a/cloud-hypervisor", "/r/api-1.sock", "/r/events", "/r/vmm.log"};
}

TEST(CommandLineTest, SaysNothingOfTheVmAndKeepsSeccompOn) {
  const auto argv = BuildCommandLine(WholeCommand());
  ASSERT_TRUE(argv);
  EXPECT_EQ(*argv,
            (std::vector<std::string>{"/a/cloud-hypervisor", "--api-socket", "path=/r/api-1.sock",
                                      "--event-monitor", "path=/r/events", "--log-file",
                                      "/r/vmm.log", "--seccomp", "true", "--no-shutdown"}));
}

TEST(CommandLineTest, EachIncarnationHasItsOwnSocket) {
  EXPECT_EQ(ApiSocketName(1), "api-1.sock");
  EXPECT_NE(ApiSocketName(1), ApiSocketName(2));
}

TEST(CommandLineTest, APathThatTheVmmWouldMisreadIsRefusedByName) {
  CommandSpec spec = WholeCommand();
  spec.event_file = "/r/ev,fd=3";
  const auto argv = BuildCommandLine(spec);
  ASSERT_FALSE(argv);
  EXPECT_EQ(argv.error().code(), ErrorCode::kInvalid);
  EXPECT_NE(argv.error().message().find("event_file"), std::string::npos);

  spec = WholeCommand();
  spec.log_file.clear();
  EXPECT_NE(BuildCommandLine(spec).error().message().find("log_file is missing"),
            std::string::npos);
  spec = WholeCommand();
  spec.api_socket = "/" + std::string(107, 'x');
  EXPECT_NE(BuildCommandLine(spec).error().message().find("107"), std::string::npos);
}

}  // namespace
}  // namespace dormouse::vmm
