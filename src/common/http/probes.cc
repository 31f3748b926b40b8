#include "src/common/http/probes.h"

namespace dormouse::http {
namespace {

ServerResponse Run(const std::vector<Check>& checks) {
  ServerResponse response;
  for (const Check& check : checks) {
    if (auto result = check.run(); !result) {
      response.status = 503;
      response.body += check.name + ": " + result.error().message() + "\n";
    }
  }
  if (response.status == 200) response.body = "ok\n";
  return response;
}

}  // namespace

void ServeProbes(Server& server, std::vector<Check> health, std::vector<Check> ready,
                 const metrics::Registry& registry) {
  server.Handle("GET", "/healthz",
                [checks = std::move(health)](const ServerRequest&) { return Run(checks); });
  server.Handle("GET", "/readyz",
                [checks = std::move(ready)](const ServerRequest&) { return Run(checks); });
  server.Handle("GET", "/metrics", [&registry](const ServerRequest&) {
    return ServerResponse{200, registry.Text(), "text/plain; version=0.0.4; charset=utf-8"};
  });
}

}  // namespace dormouse::http
