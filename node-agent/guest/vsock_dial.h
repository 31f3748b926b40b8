// The first words on a VMM's vsock socket (Cloud Hypervisor v53, hybrid vsock): the host connects
// (host::ConnectVmm), asks for a port of the guest by a line, and gets a line back when the guest
// has accepted.
//
// Stateless and thread-safe. Whoever answers may be the guest's, and is bounded as that is.
#pragma once

#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse {

/// What asks for the guest agent's port, and `first` (whole frames) behind it. For one write: the
/// VMM expects the line's first bytes together, and leaves what follows the newline for the guest.
[[nodiscard]] std::string VsockOpening(std::string_view first);

/// How many bytes the VMM's line takes at the start of what was read; 0: it is not whole yet.
/// kCorrupt: what was read is not the beginning of one.
[[nodiscard]] Result<size_t> HandshakeBytes(std::string_view seen);

}  // namespace dormouse
