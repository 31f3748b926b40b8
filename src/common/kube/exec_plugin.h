// Credentials printed by a program (client-go plugin/pkg/client/auth/exec): `aws eks get-token` and
// its kin.
//
// The program is started by posix_spawn with its argument list, never through a shell; it has a
// time limit, its output is bounded, and it never reads our stdin. Get runs it when nothing valid
// is held (one run at a time, callers wait for it) and keeps the answer until its
// expirationTimestamp. It gets our environment, without the roots that InitialiseProcess hides from
// our own OpenSSL. Thread-safe.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "src/common/base/clock.h"
#include "src/common/base/result.h"
#include "src/common/kube/cluster_config.h"
#include "src/common/kube/token_source.h"

namespace dormouse::kube {

/// What InitialiseProcess (cpprest_transport.h) puts into SSL_CERT_FILE and SSL_CERT_DIR where they
/// are not set.
inline constexpr char kNoCertFile[] = "/dev/null";
inline constexpr char kNoCertDirectory[] = "/nonexistent";

struct ExecCredential {
  ClientIdentity identity;
  std::optional<WallTime> expiry;
};

/// Reads what a plugin printed; kCorrupt when it is no ExecCredential of `api_version`, or holds
/// neither a token nor a whole certificate and key.
[[nodiscard]] Result<ExecCredential> ParseExecCredential(std::string_view text,
                                                         const std::string& api_version);

[[nodiscard]] std::unique_ptr<TokenSource> MakeExecPlugin(
    ExecConfig config, std::chrono::seconds time_limit = std::chrono::seconds(60),
    const Clock& clock = Clock::System());

}  // namespace dormouse::kube
