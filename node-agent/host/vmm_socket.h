// Sockets that a VMM makes in its own directory: API, vsock, serial line.
//
// Its guest may have taken the VMM over. It can then put another name in the place of such a socket
// (a link, a socket of somebody else), and whoever connects would give another sandbox's VMM our
// orders, or its guest our secrets. So a connection is made beneath the directory, follows nothing,
// and is used only when the process that listens is the one that we mean (Jail).
//
// Thread-safe.
#pragma once

#include <chrono>
#include <string>

#include "node-agent/host/process.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {

struct VmmSocket {
  std::string path;  ///< trusted but for its last component
  Jail jail;         ///< of the process that must be listening there
};

/// A connected, non-blocking stream socket. kUnavailable: nobody listens there yet, or too many
/// wait for longer than `timeout`. kPermission: there is no socket, or somebody else listens.
Result<UniqueFd> ConnectVmm(const VmmSocket& socket,
                            std::chrono::milliseconds timeout = std::chrono::milliseconds(0));

}  // namespace dormouse::host
