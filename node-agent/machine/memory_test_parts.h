// Generations as real files, small ones. For tests only.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"
#include "node-agent/machine/memory_check.h"
#include "node-agent/record/generation_files.h"
#include "src/common/base/files.h"
#include "src/common/base/hash.h"
#include "src/common/base/unique_fd.h"

namespace dormouse {

inline constexpr uint64_t kTestChunks = 4;

/// Chunk n is full of the letter of that number.
inline std::string TestMemory() {
  std::string memory;
  for (uint64_t chunk = 0; chunk < kTestChunks; ++chunk)
    memory.append(memory::kChunkBytes, static_cast<char>('a' + chunk));
  return memory;
}

inline memory::Manifest TestManifest(const GenerationName& generation) {
  memory::Manifest manifest;
  manifest.owner = generation.owner.text();
  manifest.generation = generation.number;
  manifest.memory = {kTestChunks * memory::kChunkBytes, 0};
  manifest.ranges = {{0, manifest.memory.bytes}};
  manifest.config = manifest.state = {1, Sha256("x")};
  manifest.vmm_digest = manifest.kernel_digest = manifest.initramfs_digest = manifest.image_digest =
      Sha256("x");
  return manifest;
}

inline void WriteManifest(const GenerationName& generation, const memory::Manifest& manifest) {
  ASSERT_OK(WriteFileAtomically(generation.directory + "/" + kManifestFile,
                                memory::EncodeManifest(manifest)));
}

inline void WriteGeneration(const GenerationName& generation) {
  ASSERT_OK(MakeDirectories(generation.directory));
  ASSERT_OK(WriteFileAtomically(generation.directory + "/" + kMemoryFile, TestMemory()));
  WriteManifest(generation, TestManifest(generation));
}

inline memory::MemoryDigests DigestsOf(const GenerationName& generation) {
  auto digests = memory::DigestMemory(generation.directory + "/" + kMemoryFile,
                                      TestManifest(generation), nullptr, [] { return true; });
  EXPECT_OK(digests);
  return digests.value_or(memory::MemoryDigests{});
}

inline void WriteDigests(const GenerationName& generation) {
  ASSERT_OK(WriteFileAtomically(generation.directory + "/" + kDigestsFile,
                                memory::EncodeDigests(DigestsOf(generation))));
}

/// What a disk or a file system does to a file by itself: its times tell nothing. `change` takes
/// the open file.
inline void ChangeUnseen(const std::string& path, const std::function<void(int fd)>& change) {
  struct stat before {};
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  change(file.get());
  const timespec times[] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(::futimens(file.get(), times), 0);
}

/// One that loses them, or gives back what is set aside.
inline void LoseExtents(const std::string& path, uint64_t offset, uint64_t length) {
  ChangeUnseen(path, [=](int fd) {
    ASSERT_EQ(::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                          static_cast<off_t>(offset), static_cast<off_t>(length)),
              0);
  });
}

/// A hole there that takes space on disk.
inline void SetAside(const std::string& path, uint64_t offset, uint64_t length) {
  LoseExtents(path, offset, length);
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_OK(host::Allocate(file.get(), offset, length));
}

inline void FlipByte(const std::string& path, uint64_t offset) {
  ChangeUnseen(path, [=](int fd) {
    char byte = 0;
    ASSERT_EQ(::pread(fd, &byte, 1, static_cast<off_t>(offset)), 1);
    byte = static_cast<char>(byte ^ 1);
    ASSERT_EQ(::pwrite(fd, &byte, 1, static_cast<off_t>(offset)), 1);
  });
}

}  // namespace dormouse
