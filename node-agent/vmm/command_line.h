// How a cloud-hypervisor process is started. Pure; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse::vmm {

struct CommandSpec {
  std::string binary;      ///< by digest, in the ArtifactStore
  std::string api_socket;  ///< of this incarnation only; ApiSocketName()
  std::string event_file;  ///< truncated by the VMM at start, written without O_APPEND
  std::string log_file;    ///< likewise; warnings and errors only
};

/// "api-<n>.sock": the VMM keeps a lock beside its socket and leaves both behind when it is killed,
/// so each incarnation gets a name of its own.
[[nodiscard]] std::string ApiSocketName(uint64_t incarnation);

inline constexpr size_t kMaxUnixPath =
    107;  ///< a socket's path: sun_path without its NUL (unix(7))

/// argv. Seccomp is on; a guest that powers off does not end the process (exit_reason.h says why:
/// end it on the event); nothing of the VM is on the command line, so that failures come back over
/// the API with their cause. kInvalid, by name, for an empty path, one with a comma or an equals
/// sign (the VMM's option parser splits there), or a socket path longer than a unix address can
/// hold (107 bytes).
Result<std::vector<std::string>> BuildCommandLine(const CommandSpec& spec);

}  // namespace dormouse::vmm
