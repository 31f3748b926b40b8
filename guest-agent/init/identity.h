// Who a guest is, on its disk: what a clone must not have in common with its source. Blocking, but
// never on what the disk holds in place of a file (a pipe, a link).
#pragma once

#include <string>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse::guest {

/// Writes machine-id(5) to <root>/etc/machine-id (made where there is none), and to
/// /run/machine-id and /var/lib/dbus/machine-id where they are files. In place: neither a full disk
/// nor a file mounted there is in the way. What a read-only file system keeps from being changed is
/// added to `notes`.
[[nodiscard]] Result<void> WriteMachineId(const std::string& root, const std::string& machine_id,
                                          std::vector<std::string>& notes);

/// Deletes <root>/etc/ssh/ssh_host_*: a service that wants keys makes its own.
[[nodiscard]] Result<void> RemoveSshHostKeys(const std::string& root,
                                             std::vector<std::string>& notes);

}  // namespace dormouse::guest
