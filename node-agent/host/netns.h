// Network namespaces with a name: a bind mount of nsfs at a path (as `ip netns` keeps them), so
// that one lives without a process in it, and is found again after a restart.
//
// Thread-safe. No thread that lives on ever changes its namespace: creating and entering happen on
// throw-away threads, so that a failure to come back can strand nothing (CNI's rule).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "node-agent/host/mounts.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {

/// A new namespace, `lo` down, without a name: it goes with the last descriptor or process that
/// holds it. `work` runs inside, on the thread that made it.
Result<UniqueFd> NewNetNs(const std::function<Result<>()>& work);
/// Keeps one alive at `path` in the host's mount namespace, where there is none yet. Its directory
/// exists.
Result<> BindNetNs(const HostNamespaces& host, int netns, const std::string& path);
/// Both. Success when there is one already.
Result<> CreateNetNs(const HostNamespaces& host, const std::string& path);
/// kNotFound when `path` is missing or is not a network namespace (a file left by a crash).
Result<UniqueFd> OpenNetNs(const HostNamespaces& host, const std::string& path);
/// Unmounts and removes the file. Success when it is not there. Links in it go with its last
/// holder.
Result<> DeleteNetNs(const HostNamespaces& host, const std::string& path);
/// The names in `directory`, those that are not (or no longer) mounted too: they are leaks.
Result<std::vector<std::string>> ListNetNs(const HostNamespaces& host,
                                           const std::string& directory);

/// Runs `work` on a fresh thread inside `netns`, and waits for it.
Result<> RunInNetNs(int netns, const std::function<Result<>()>& work);

}  // namespace dormouse::host
