// The directory through which a VMM hands over what only it can write of a VM: its config and
// state, and its memory where we do not read that ourselves (memory/dump.h).
//
// The VMM may have been taken over by its guest. So nothing that it wrote is kept: it is read or
// copied by host/beneath.h, and the drop is emptied. Thread-safe as far as the drops differ.
#pragma once

#include <sys/types.h>

#include <string>

#include "node-agent/host/beneath.h"
#include "node-agent/vmm/api_client.h"
#include "node-agent/vmm/snapshot_files.h"
#include "src/common/base/result.h"

namespace dormouse {

struct VmmDrop {
  host::Directory directory;  ///< the VMM's while it writes, else root's
  std::string inner;          ///< the same, as the VMM sees it
  uid_t vmm = 0;              ///< the VMM's user
};

enum class Handover {
  kStateOnly,   ///< vmm::ApiClient::SnapshotStateOnly
  kWithMemory,  ///< the VMM's own snapshot, dense: its memory is then in the drop
};

struct HandedOver {
  std::string config;         ///< the text of config.json
  std::string command_line;   ///< in it: vmm::ReadCommandLine
  vmm::StateSummary summary;  ///< of state.json
};

/// Has the VMM of a paused VM write into the emptied drop, and copies config.json and state.json
/// to the directory `generation`. Memory stays in the drop, for TakeMemory. What fails leaves the
/// drop empty: memory may be as large as all that the disk had left. kNoSpace when the VMM had no
/// room, whether it noticed or not; kUnsupported (kStateOnly) when it is to be asked kWithMemory;
/// kCorrupt when it wrote what cannot be.
Result<HandedOver> TakeSnapshot(const vmm::ApiClient& api, const VmmDrop& drop, Handover handover,
                                const std::string& generation);

/// After kWithMemory: makes the file `to`, in place of what is there, a copy of the memory, which
/// must have exactly `bytes`; and empties the drop.
Result<> TakeMemory(const VmmDrop& drop, uint64_t bytes, const std::string& to);

/// Makes a drop root's: one that a snapshot was cut short by the agent's end is still its VMM's,
/// which could fill the disk. Harmless where there is none.
Result<> TakeBack(const std::string& drop);

/// What a snapshot that was cut short has left in a drop: the path of a memory that is not empty,
/// or nothing.
[[nodiscard]] std::string LeftMemory(const std::string& drop);

}  // namespace dormouse
