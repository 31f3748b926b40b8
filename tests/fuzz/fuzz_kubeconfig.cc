// A user's kubeconfig and a plugin's ExecCredential, as anybody may have written them.

#include <cstdint>
#include <string_view>

#include "src/common/kube/cluster_config.h"
#include "src/common/kube/exec_plugin.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)dormouse::kube::ParseKubeconfig(text, "/home/user/.kube");
  (void)dormouse::kube::ParseExecCredential(text, "client.authentication.k8s.io/v1");
  return 0;
}
