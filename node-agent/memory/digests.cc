#include "node-agent/memory/digests.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "node-agent/host/sparse_files.h"
#include "node-agent/memory/zero.h"
#include "src/common/base/hash.h"
#include "src/common/base/sealed_json.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::memory {
namespace {

using nlohmann::json;

constexpr Seal kDigestsSeal{"digests", MemoryDigests::kVersion};

// Reads chunks in order, and knows the holes between them without reading.
class ChunkReader {
 public:
  static Result<ChunkReader> Open(const std::string& path, uint64_t bytes) {
    DORMOUSE_ASSIGN(UniqueFd fd, host::OpenFile(path, O_RDONLY));
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return FailErrno("stat " + path);
    if (static_cast<uint64_t>(info.st_size) != bytes) {
      return Fail(ErrorCode::kCorrupt, path + " has " + std::to_string(info.st_size) +
                                           " bytes, not " + std::to_string(bytes));
    }
    return ChunkReader(std::move(fd), path, bytes);
  }

  Result<std::string> Digest(uint64_t chunk) {
    const uint64_t offset = chunk * kChunkBytes;
    const uint64_t size = std::min(kChunkBytes, bytes_ - offset);
    if (!looked_ || (data_ && data_->offset + data_->length <= offset)) {
      DORMOUSE_ASSIGN(data_, host::NextData(fd_.get(), offset));
      looked_ = true;
    }
    if (!data_ || data_->offset >= offset + size) return std::string(kZeroChunk);
    for (uint64_t done = 0; done < size;) {
      const ssize_t got =
          ::pread(fd_.get(), block_.get() + done, size - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        return FailErrno("read " + path_ + ", memory chunk " + std::to_string(chunk) +
                         " at offset " + std::to_string(offset));
      }
      if (got == 0) return Fail(ErrorCode::kCorrupt, path_ + " was cut while it was read");
      done += static_cast<uint64_t>(got);
    }
    if (IsZero(block_.get(), size)) return std::string(kZeroChunk);
    return Sha256({block_.get(), size});
  }

 private:
  ChunkReader(UniqueFd fd, std::string path, uint64_t bytes)
      : fd_(std::move(fd)),
        path_(std::move(path)),
        bytes_(bytes),
        block_(std::make_unique_for_overwrite<char[]>(kChunkBytes)) {}

  UniqueFd fd_;
  std::string path_;
  uint64_t bytes_;
  std::unique_ptr<char[]> block_;
  bool looked_ = false;
  std::optional<host::Extent> data_;  ///< the last that was looked up; later chunks only
};

tl::unexpected<Error> Cancelled() {
  return Fail(ErrorCode::kCancelled, "the digests of memory are no longer asked for");
}

bool IsChunkDigest(const std::string& text) {
  return text == kZeroChunk || IsSha256(text);
}

}  // namespace

std::string EncodeDigests(const MemoryDigests& digests) {
  return SealJson(kDigestsSeal, {{"generation", digests.generation},
                                 {"bytes", digests.bytes},
                                 {"chunkBytes", kChunkBytes},
                                 {"chunks", digests.chunks}});
}

Result<MemoryDigests> DecodeDigests(std::string_view text) {
  MemoryDigests digests;
  DORMOUSE_TRY(OpenSealedJson(kDigestsSeal, text, [&](const json& body) {
    if (!body.at("generation").is_number_unsigned() || !body.at("bytes").is_number_unsigned()) {
      throw std::invalid_argument("generation, bytes");
    }
    digests.generation = body.at("generation").get<uint64_t>();
    digests.bytes = body.at("bytes").get<uint64_t>();
    digests.chunks = body.at("chunks").get<std::vector<std::string>>();
    if (body.at("chunkBytes").get<uint64_t>() != kChunkBytes ||
        digests.chunks.size() != ChunkCount(digests.bytes) ||
        !std::all_of(digests.chunks.begin(), digests.chunks.end(), IsChunkDigest)) {
      throw std::invalid_argument("chunks");
    }
  }));
  return digests;
}

Result<MemoryDigests> DigestMemory(const std::string& path, const Manifest& manifest,
                                   const MemoryDigests* parent, const KeepGoing& keep_going) {
  const uint64_t bytes = manifest.memory.bytes;
  DORMOUSE_ASSIGN(ChunkReader reader, ChunkReader::Open(path, bytes));
  MemoryDigests digests{manifest.generation, bytes, {}};
  std::vector<ChunkRun> to_read = {{0, ChunkCount(bytes)}};
  if (parent != nullptr && manifest.parent == parent->generation && parent->bytes == bytes) {
    digests.chunks = parent->chunks;
    to_read = manifest.changed_chunks;
  }
  digests.chunks.resize(ChunkCount(bytes));
  for (const ChunkRun& run : to_read) {
    for (uint64_t chunk = run.first; chunk < run.first + run.count; ++chunk) {
      if (!keep_going()) return Cancelled();
      DORMOUSE_ASSIGN(digests.chunks.at(chunk), reader.Digest(chunk));
    }
  }
  return digests;
}

Result<> VerifyMemory(const std::string& path, const MemoryDigests& digests,
                      const KeepGoing& keep_going) {
  DORMOUSE_ASSIGN(ChunkReader reader, ChunkReader::Open(path, digests.bytes));
  uint64_t first = 0;
  uint64_t differ = 0;
  for (uint64_t chunk = 0; chunk < digests.chunks.size(); ++chunk) {
    if (!keep_going()) return Cancelled();
    DORMOUSE_ASSIGN(const std::string digest, reader.Digest(chunk));
    if (digest != digests.chunks[chunk] && differ++ == 0) first = chunk;
  }
  if (differ == 0) return {};
  std::string message = path + ": memory chunk " + std::to_string(first) + " of " +
                        std::to_string(digests.chunks.size()) + " (at offset " +
                        std::to_string(first * kChunkBytes) + ")";
  if (differ == 1) return Fail(ErrorCode::kCorrupt, message + " differs");
  return Fail(ErrorCode::kCorrupt, message + " and " + std::to_string(differ - 1) + " more differ");
}

}  // namespace dormouse::memory
