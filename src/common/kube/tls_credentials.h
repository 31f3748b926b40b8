// The PEM files a connection needs, read as one consistent set, so that a rotation can be noticed.
//
// Plain values; thread-safe.
#pragma once

#include <string>

#include "src/common/base/result.h"
#include "src/common/kube/cluster_config.h"
#include "src/common/kube/token_source.h"

namespace dormouse::kube {

struct TlsCredentials {
  std::string ca_pem;  ///< empty = the system's
  std::string certificate_pem;
  std::string key_pem;
  bool operator==(const TlsCredentials&) const = default;
};

/// Reads what `config` names; a certificate of an exec plugin (`identity`) wins. kInvalid when a
/// certificate and its key do not belong together (a rotation caught halfway), or the CA file holds
/// no certificate.
[[nodiscard]] Result<TlsCredentials> ReadTlsCredentials(const ClusterConfig& config,
                                                        const ClientIdentity& identity);

}  // namespace dormouse::kube
