// config.json and state.json of a snapshot, in v53.0's shape as far as anybody reads them: a tree
// of
// {"snapshots", "snapshot_data": {"state": "<JSON in a string>"}}. Pure but for the reading and
// writing.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tests/fakes/fake-cloud-hypervisor/answer.h"
#include "tests/fakes/fake-cloud-hypervisor/devices.h"
#include "tests/fakes/fake-cloud-hypervisor/memory.h"

namespace dormouse::fake_vmm {

/// The memory manager's part of a snapshot that is restored.
struct SavedMemory {
  std::vector<MemoryRange> to_copy;  ///< memory_ranges: what is read from the file; empty = nothing
  std::vector<MemoryRange> mappings;  ///< guest_ram_mappings, with their offsets in a zone's file
};

/// "file:///dir" -> "/dir", which must be a directory.
Outcome<std::string> DirectoryOf(const std::string& url);

/// Both files, each made with create_new, in the order of the real one.
Outcome<> WriteConfigAndState(const std::string& directory, const nlohmann::json& config,
                              const GuestMemory& memory, const std::vector<Disk>& disks);

Outcome<nlohmann::json> ReadSnapshotConfig(const std::string& directory);
Outcome<SavedMemory> ReadSnapshotState(const std::string& directory);

}  // namespace dormouse::fake_vmm
