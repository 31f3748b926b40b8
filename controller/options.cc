#include "controller/options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "src/common/base/time.h"

namespace dormouse::controller {
namespace {

/// A Go duration of at least a millisecond: "15s", "1m30s".
void AddDuration(CLI::App* app, const std::string& name, std::chrono::milliseconds* into,
                 const std::string& help) {
  app->add_option_function<std::string>(
         name,
         [name, into](const std::string& text) {
           const auto duration = ParseDuration(text);
           if (!duration || *duration < std::chrono::milliseconds(1)) {
             throw CLI::ValidationError(name, "must be a duration such as 15s, not " + text);
           }
           *into = std::chrono::duration_cast<std::chrono::milliseconds>(*duration);
         },
         help + " [" + std::to_string(into->count() / 1000) + "s]")
      ->type_name("DURATION");
}

void AddLogging(CLI::App* app, Options* options) {
  app->add_option_function<std::string>(
         "--log-level",
         [options](const std::string& text) {
           if (!log::ParseLevel(text, &options->log_level)) {
             throw CLI::ValidationError("--log-level", "must be debug, info, warning or error");
           }
         },
         "What is logged: debug, info, warning, error [info]")
      ->type_name("LEVEL");
  app->add_option_function<std::string>(
         "--log-format",
         [options](const std::string& text) {
           if (text != "json" && text != "text")
             throw CLI::ValidationError("--log-format", "must be json or text");
           options->log_json = text == "json";
         },
         "json, or text [text on a terminal, else json]")
      ->type_name("FORMAT");
}

}  // namespace

ParsedOptions ParseOptions(int argc, char** argv) {
  ParsedOptions parsed;
  Options& options = parsed.options;
  options.log_json = isatty(STDERR_FILENO) == 0;
  CLI::App app("Places Dormouse sandboxes on nodes and ends them.", "dormouse-controller");
  app.set_version_flag("--version", DORMOUSE_VERSION);
  app.option_defaults()->always_capture_default();
  app.option_defaults()->multi_option_policy(
      CLI::MultiOptionPolicy::TakeLast);  // as every Kubernetes program does
  app.add_option("--kubeconfig", options.kubeconfig,
                 "Where the API server is; else $KUBECONFIG, the pod, ~/.kube/config");
  app.add_option("--context", options.context, "The kubeconfig's context");
  app.add_flag("--leader-elect,!--no-leader-elect", options.leader_elect,
               "Work only while holding the lease");
  app.add_option("--lease-namespace", options.lease_namespace,
                 "The namespace of the leader's lease");
  app.add_option("--lease-name", options.lease_name, "The leader's lease");
  AddDuration(&app, "--lease-duration", &options.lease_duration,
              "How long a silent leader is waited for");
  AddDuration(&app, "--renew-deadline", &options.renew_deadline,
              "When a leader that cannot renew gives up");
  AddDuration(&app, "--retry-period", &options.retry_period,
              "How often the lease is tried for, or renewed");
  app.add_option("--node-lease-namespace", options.node_lease_namespace,
                 "Where the agents keep their leases; the leader's namespace if empty");
  AddDuration(&app, "--node-lease-duration", &options.node_lease_duration,
              "When a node is lost whose lease does not say how long it is good for");
  AddDuration(&app, "--refusal-memory", &options.refusal_memory,
              "How long a node that refused a sandbox is avoided for it");
  app.add_option("--health-address", options.health_address,
                 "Where /healthz and /readyz are served");
  app.add_option("--metrics-address", options.metrics_address,
                 "Where /metrics is served; empty for nowhere");
  app.add_option("--workers", options.workers, "How many sandboxes are reconciled at once")
      ->check(CLI::Range(1, 64));
  AddLogging(&app, &options);
  try {
    app.parse(argc, argv);
    if (options.lease_duration <= options.renew_deadline ||
        options.renew_deadline.count() <= options.retry_period.count() * 12 / 10) {
      throw CLI::ValidationError("--lease-duration",
                                 "must exceed --renew-deadline, and that 1.2 times --retry-period");
    }
  } catch (const CLI::ParseError& outcome) {
    parsed.run = false;
    parsed.exit_code = app.exit(outcome);
  }
  if (options.node_lease_namespace.empty()) options.node_lease_namespace = options.lease_namespace;
  return parsed;
}

}  // namespace dormouse::controller
