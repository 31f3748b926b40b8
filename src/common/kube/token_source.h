// Bearer tokens that change while we run.
//
// Thread-safe. A file is read again about each 50 s (client-go transport/token_source.go: 60 s
// minus 10 s of leeway); when that fails the old token is kept. After a 401 the caller drops the
// token it used, and the next Get reads anew at once.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "src/common/base/clock.h"
#include "src/common/base/result.h"
#include "src/common/kube/cluster_config.h"

namespace dormouse::kube {

/// What an exec plugin may give instead of, or beside, a token.
struct ClientIdentity {
  std::string token;
  std::string certificate_pem;
  std::string key_pem;
  bool operator==(const ClientIdentity&) const = default;
};

class TokenSource {
 public:
  virtual ~TokenSource() = default;
  /// The identity to use now; an empty token = send no Authorization header.
  [[nodiscard]] virtual Result<ClientIdentity> Get() = 0;
  /// The server said 401 to `used`: forget it if it is still the one held.
  virtual void Drop(const ClientIdentity& used) = 0;
};

/// A constant, a file, or an exec plugin, as `config` says.
[[nodiscard]] std::unique_ptr<TokenSource> MakeTokenSource(const ClusterConfig& config,
                                                           const Clock& clock = Clock::System());

}  // namespace dormouse::kube
