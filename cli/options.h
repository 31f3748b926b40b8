// The command line of kubectl-dormouse.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace dormouse::cli {

enum class Verb { kSuspend, kResume, kSnapshot, kClone };

struct Options {
  Verb verb = Verb::kSuspend;
  std::vector<std::string> sandboxes;  ///< to suspend, resume or freeze (one); or to make
  std::string snapshot_template;       ///< of kSnapshot and kClone
  std::string kubeconfig;  ///< empty: $KUBECONFIG, a pod's service account, ~/.kube/config
  std::string context;
  std::string ns;  ///< empty: the context's
  bool wait = false;
  std::chrono::nanoseconds timeout = std::chrono::minutes(5);
};

/// What to do after parsing: run with the options, or exit at once (--help, --version, a mistake).
struct ParsedOptions {
  Options options;
  bool run = true;
  int exit_code = 0;
};

/// Prints help, version or the mistake itself. A mistake's exit code is 1, as kubectl's is.
[[nodiscard]] ParsedOptions ParseOptions(int argc, const char* const* argv);

}  // namespace dormouse::cli
