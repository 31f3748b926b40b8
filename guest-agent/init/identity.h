// What of a guest's identity lies on its disk and must not be there: the SSH host keys of somebody
// else. Blocking, but never on what the disk holds in place of a file (a pipe, a link).
#pragma once

#include <string>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse::guest {

/// Deletes <root>/etc/ssh/ssh_host_*: a service that wants keys makes its own. What a read-only or
/// full file system keeps from going is added to `notes`.
[[nodiscard]] Result<void> RemoveSshHostKeys(const std::string& root,
                                             std::vector<std::string>& notes);

}  // namespace dormouse::guest
