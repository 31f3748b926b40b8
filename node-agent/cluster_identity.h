// Which cluster this node's records belong to: the UID of its kube-system namespace, remembered on
// disk so that an agent can look after its sandboxes while no API server answers.
#pragma once

#include <string>

#include "src/common/base/result.h"
#include "src/common/kube/client.h"

namespace dormouse {

/// Asks the API server; where it does not answer, what `file` remembers. kUnavailable when neither
/// knows. `file` is written when the answer is new. Blocks for one request.
Result<std::string> ReadClusterIdentity(kube::Client& client, const std::string& file);

}  // namespace dormouse
