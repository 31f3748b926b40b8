// Where the API server is and who we are to it: from a kubeconfig, or from the pod we run in.
//
// Plain values and pure functions but for the files they read. The rules are client-go's
// (tools/clientcmd/loader.go, controller-runtime pkg/client/config): --kubeconfig, then $KUBECONFIG
// (a list by colons, the first file wins per name, paths are relative to their file), then the
// pod's service account, then ~/.kube/config. What we do not speak (proxy-url, auth-provider, basic
// authentication, impersonation) is refused by name rather than left out in silence.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse::kube {

/// PEM text, given as such or by a file that may be rotated under us. Both empty = none.
struct PemSource {
  std::string data{};
  std::string file{};
  [[nodiscard]] bool empty() const { return data.empty() && file.empty(); }
};

/// A program that prints an ExecCredential (client.authentication.k8s.io).
struct ExecConfig {
  std::string api_version{};
  std::string command{};
  std::vector<std::string> args{};
  std::vector<std::pair<std::string, std::string>> env{};
  bool provide_cluster_info = false;
  std::string install_hint{};
};

inline constexpr std::size_t kMaxTokenBytes = 64 * 1024;  ///< of a token's file

struct ClusterConfig {
  std::string server{};  ///< "https://host:port[/prefix]"; http is allowed, for tests
  std::string tls_server_name{};
  bool insecure_skip_tls_verify = false;
  PemSource ca{};  ///< none = the system's
  PemSource client_certificate{};
  PemSource client_key{};
  std::string token{};
  std::string token_file{};  ///< wins over `token`
  std::optional<ExecConfig> exec{};
  std::string ns = "default";
};

/// One kubeconfig's text; relative paths become relative to `directory`. kInvalid says what is
/// wrong and where. The context is `context`, or the file's current one.
[[nodiscard]] Result<ClusterConfig> ParseKubeconfig(std::string_view text,
                                                    const std::string& directory,
                                                    const std::string& context = {});
/// Several files merged, the first one winning per name; files that are not there are passed over.
[[nodiscard]] Result<ClusterConfig> LoadKubeconfigs(const std::vector<std::string>& paths,
                                                    const std::string& context = {});
/// From a pod's environment and its service account directory. kNotFound outside a pod.
[[nodiscard]] Result<ClusterConfig> InClusterConfig(
    const std::string& directory = "/var/run/secrets/kubernetes.io/serviceaccount");
/// By the order above; `kubeconfig_flag` may be empty.
[[nodiscard]] Result<ClusterConfig> LoadClusterConfig(const std::string& kubeconfig_flag,
                                                      const std::string& context = {});

}  // namespace dormouse::kube
