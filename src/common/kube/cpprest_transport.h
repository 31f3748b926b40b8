// HttpTransport on cpprestsdk 2.10.18, held as that archived library must be held.
//
// Its thread pool defaults to 40 threads and its size is fixed by first use: InitialiseProcess must
// run before anything else in main. Its time limit is an idle timer, so deadlines are ours, by
// cancellation; its response buffer is unbounded, so bodies go through a stream buffer of ours that
// parses before it asks for more. It holds one chunk of the server's at a time, however large that
// is. TCP keep-alive and TCP_USER_TIMEOUT end a half-open connection within 45 s. Certificates and
// CA files are looked at again each minute, and a change replaces the client. Destroying a
// transport waits for what was cancelled on it to end, two seconds at most. Thread-safe.
#pragma once

#include <memory>
#include <string>

#include "src/common/base/clock.h"
#include "src/common/base/metrics.h"
#include "src/common/base/result.h"
#include "src/common/kube/cluster_config.h"
#include "src/common/kube/http_transport.h"

namespace dormouse::kube {

/// Sizes the thread pool, and points SSL_CERT_FILE/SSL_CERT_DIR at nothing where they are not set:
/// cpprestsdk loads the system's roots for each new connection (17 ms of CPU) although we bring our
/// own CA. Call it as the first line of main, before any thread exists. Safe to call twice.
void InitialiseProcess(int threads = 4);

struct TransportOptions {
  std::string user_agent = "dormouse";
  const Clock* clock = &Clock::System();
  /// For rest_client_requests_total and rest_client_request_duration_seconds.
  metrics::Registry* metrics = &metrics::Registry::Default();
};

/// kInvalid when the configuration cannot work (no server, certificate without key, unreadable
/// files). Nothing is sent yet.
[[nodiscard]] Result<std::shared_ptr<HttpTransport>> MakeTransport(const ClusterConfig& config,
                                                                   TransportOptions options = {});

}  // namespace dormouse::kube
