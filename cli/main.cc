// kubectl-dormouse: on PATH, it is `kubectl dormouse`. A client of the API server and of nothing
// else.
#include <signal.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "src/common/base/log.h"
#include "src/common/kube/cluster_config.h"
#include "src/common/kube/cpprest_transport.h"

namespace dormouse::cli {
namespace {

int Main(Options options) {
  const Io io{STDOUT_FILENO, STDERR_FILENO};
  const auto cluster = kube::LoadClusterConfig(options.kubeconfig, options.context);
  if (!cluster) return Report(io, cluster.error().message());
  const auto transport =
      kube::MakeTransport(*cluster, {.user_agent = "kubectl-dormouse/" DORMOUSE_VERSION});
  if (!transport) return Report(io, transport.error().message());
  if (options.ns.empty()) options.ns = cluster->ns;
  return Run(options, *transport, io);
}

}  // namespace
}  // namespace dormouse::cli

int main(int argc, char** argv) {
  dormouse::kube::InitialiseProcess(4);
  (void)::signal(SIGPIPE, SIG_IGN);
  auto parsed = dormouse::cli::ParseOptions(argc, argv);
  if (!parsed.run) return parsed.exit_code;
  // Errors are told in our own words; what is left are notes on tries that are made again.
  dormouse::log::Configure(dormouse::log::Level::kError, false);
  return dormouse::cli::Main(std::move(parsed.options));
}
