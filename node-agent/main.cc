// dormouse-agent: this node's sandboxes. `dormouse-agent ctl` is its tool for the person on call.
#include <cstring>

#include "node-agent/run.h"
#include "node-agent/serve/ctl.h"
#include "src/common/base/log.h"
#include "src/common/kube/cpprest_transport.h"

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "ctl") == 0) return dormouse::ctl_main(argc - 1, argv + 1);
  dormouse::kube::InitialiseProcess();
  int exit_code = 0;
  const auto flags = dormouse::ParseAgentFlags(argc, argv, &exit_code);
  if (!flags) return exit_code;
  dormouse::log::Level level = dormouse::log::Level::kInfo;
  (void)dormouse::log::ParseLevel(flags->log_level, &level);
  dormouse::log::Configure(level, flags->log_format == "json");
  if (auto run = dormouse::RunAgent(*flags, dormouse::Hardware::Node()); !run) {
    dormouse::log::Error("the agent ends", {{"error", run.error().message()}});
    return 1;
  }
  return 0;
}
