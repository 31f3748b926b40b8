// The digests of a memory file, one for each chunk of kChunkBytes: what says that it still is what
// was captured. Kept in "memory.digests" beside the manifest, added when they have been computed.
//
// A digest is of content, not of extents: a chunk of zeros has the same one whether it is a hole or
// not, so that a file that was copied sparsely keeps its digests. SHA-256: with the CPU's
// instructions for it the fastest strong one that OpenSSL has.
//
// Thread-safe. Reading takes as long as the file is on disk; give it a thread that nobody waits
// for.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/memory/manifest.h"
#include "src/common/base/result.h"

namespace dormouse::memory {

/// In place of a digest: all bytes of the chunk are zero.
inline constexpr std::string_view kZeroChunk = "0";

struct MemoryDigests {
  static constexpr int kVersion = 1;

  uint64_t generation = 0;
  uint64_t bytes = 0;               ///< of the memory file
  std::vector<std::string> chunks;  ///< 64 hex digits, or kZeroChunk
  bool operator==(const MemoryDigests&) const = default;
};

/// As EncodeManifest and DecodeManifest do: with version and checksum, strict, kCorrupt.
[[nodiscard]] std::string EncodeDigests(const MemoryDigests& digests);
Result<MemoryDigests> DecodeDigests(std::string_view text);
/// 100 bytes for each chunk: enough for 512 GiB of RAM.
inline constexpr size_t kMaxDigestsBytes = size_t{32} << 20;

/// Asked before each chunk that is read; false ends the work with kCancelled.
using KeepGoing = std::function<bool()>;

/// Computes the digests of the memory file of `manifest` at `path`. With those of the parent, only
/// `manifest.changed_chunks` are read and all others carried forward; `parent` that is null, or is
/// not of the manifest's parent, is not used. kCorrupt when the file has another size.
Result<MemoryDigests> DigestMemory(const std::string& path, const Manifest& manifest,
                                   const MemoryDigests* parent, const KeepGoing& keep_going);

/// Reads the whole memory file and compares. kCorrupt naming the first chunk that differs, its
/// offset, and how many do ("memory chunk 3 of 256 (at offset 6291456) and 2 others differ").
Result<> VerifyMemory(const std::string& path, const MemoryDigests& digests,
                      const KeepGoing& keep_going);

}  // namespace dormouse::memory
