// The command line of dormouse-controller.
#pragma once

#include <chrono>
#include <string>

#include "src/common/base/log.h"
#include "src/common/base/result.h"

namespace dormouse::controller {

struct Options {
  std::string kubeconfig;  ///< empty: $KUBECONFIG, the pod's service account, ~/.kube/config
  std::string context;
  bool leader_elect = true;
  std::string lease_namespace = "dormouse-system";
  std::string lease_name = "dormouse-controller";
  std::chrono::milliseconds lease_duration{15'000};
  std::chrono::milliseconds renew_deadline{10'000};
  std::chrono::milliseconds retry_period{2'000};
  std::string node_lease_namespace;  ///< empty: lease_namespace
  std::chrono::milliseconds node_lease_duration{40'000};
  std::chrono::milliseconds refusal_memory{60'000};
  std::string health_address = ":8081";
  std::string metrics_address =
      ":8080";  ///< the same as health_address: one server for both; empty: none
  int workers = 4;
  log::Level log_level = log::Level::kInfo;
  bool log_json = true;
};

/// What to do after parsing: run with the options, or exit at once (--help, --version, a mistake).
struct ParsedOptions {
  Options options;
  bool run = true;
  int exit_code = 0;
};

/// Prints help, version or the mistake itself.
[[nodiscard]] ParsedOptions ParseOptions(int argc, char** argv);

}  // namespace dormouse::controller
