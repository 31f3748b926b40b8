// What a generation is: {memory, state.json, config.json, store} with their sizes and digests, and
// by digest what it needs to run again. The manifest is written last, with the generation; nothing
// in a generation changes afterwards.
//
// Memory's own digests take as long as reading it, so they stand in a file of their own that is
// added off the critical path (digests.h); the manifest says which chunks differ from the parent's,
// so that those of all others can be carried forward even by an agent that has started since.
//
// Pure values; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/memory/dump.h"
#include "node-agent/memory/ram_map.h"
#include "src/common/base/clock.h"
#include "src/common/base/result.h"

namespace dormouse::memory {

/// What one digest of memory covers; the last chunk may be shorter.
inline constexpr uint64_t kChunkBytes = uint64_t{2} << 20;

[[nodiscard]] constexpr uint64_t ChunkCount(uint64_t memory_bytes) {
  return (memory_bytes + kChunkBytes - 1) / kChunkBytes;
}

/// Chunks [first, first + count).
struct ChunkRun {
  uint64_t first = 0;
  uint64_t count = 0;
  bool operator==(const ChunkRun&) const = default;
};
/// The chunks that hold a byte of `changed`, which is in order; in order, neighbours in one run.
[[nodiscard]] std::vector<ChunkRun> ChunksOf(const std::vector<FileRun>& changed);

/// A small file, wholly known.
struct FileSummary {
  uint64_t bytes = 0;
  std::string sha256;
  bool operator==(const FileSummary&) const = default;
};
/// A large file: `allocated_bytes` is what it takes on disk (st_blocks), shared extents included.
struct ExtentSummary {
  uint64_t bytes = 0;
  uint64_t allocated_bytes = 0;
  bool operator==(const ExtentSummary&) const = default;
};

/// What it takes to run a generation again.
struct Requirements {
  std::string vmm_digest, kernel_digest, initramfs_digest, image_digest;  ///< sha256
  std::string vmm_version;    ///< "53.0", as vmm.ping says it
  std::string cpu_model;      ///< of the node, as /proc/cpuinfo says it
  std::string guest_version;  ///< of the agent that runs in it; empty where the guest did not say
  bool operator==(const Requirements&) const = default;
};

struct Manifest : Requirements {
  static constexpr int kVersion = 1;

  std::string owner;        ///< UID of the sandbox or template
  uint64_t generation = 0;  ///< counts up with every capture of the owner
  /// The generation whose memory file this one's is a copy of, with `changed_chunks` written anew.
  /// Nothing where the memory file was written from nothing.
  std::optional<uint64_t> parent;
  WallTime captured_at{};

  ExtentSummary memory;
  std::vector<GuestRange> ranges;  ///< as they follow each other in the memory file
  std::vector<ChunkRun> changed_chunks;
  uint64_t written_bytes = 0;  ///< of memory, by this capture
  FileSummary config, state;   ///< as the VMM wrote them; edited copies are made for each restore
  ExtentSummary store;
  bool store_reflinked = false;  ///< else it is a sparse copy

  uint32_t vcpus = 0;
  uint64_t disk_bytes = 0;  ///< of the device that the guest sees
  /// Its programs are known to have stood still: only then can it become another. Files of before
  /// this was written down are read as true.
  bool frozen = true;

  bool operator==(const Manifest&) const = default;
};

/// {"version", "checksum", "manifest"}: the checksum is the SHA-256 of the manifest's canonical
/// text.
[[nodiscard]] std::string EncodeManifest(const Manifest& manifest);
/// kCorrupt for anything that is not exactly what EncodeManifest wrote, in a known version, and for
/// ranges, chunks and digests that cannot be.
Result<Manifest> DecodeManifest(std::string_view text);
/// No manifest is larger: one that is read is read up to here.
inline constexpr size_t kMaxManifestBytes = size_t{4} << 20;

}  // namespace dormouse::memory
