#include "node-agent/machine/memory_check.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <sstream>

#include "node-agent/host/sparse_files.h"
#include "node-agent/record/generation_files.h"
#include "src/common/base/files.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

constexpr size_t kMaxMarkBytes = 4096;

std::string MemoryOf(const std::string& directory) {
  return directory + "/" + kMemoryFile;
}

// "<inode> <size> <time>\n<allocated> <data>\n", the last only where it was counted.
std::string EncodeMark(const FilesIdentity& identity) {
  const std::string data = identity.data_bytes ? " " + std::to_string(*identity.data_bytes) : "";
  return identity.memory + "\n" + std::to_string(identity.allocated_bytes) + data + "\n";
}

// Whatever cannot be read of it names no file, or files that take nothing: so did older agents,
// whose marks have one line, and stay good.
FilesIdentity DecodeMark(const std::string& text) {
  std::istringstream in(text);
  FilesIdentity identity;
  std::getline(in, identity.memory);
  in >> identity.allocated_bytes;
  if (uint64_t data = 0; in >> data) identity.data_bytes = data;
  return identity;
}

// A file system that tells no holes calls all of a sparse file data.
bool IsBelieved(const FilesIdentity& identity) {
  return identity.data_bytes && *identity.data_bytes <= identity.allocated_bytes;
}

}  // namespace

std::optional<memory::MemoryDigests> ReadDigests(const std::string& directory,
                                                 const memory::Manifest& manifest) {
  const std::string path = directory + "/" + kDigestsFile;
  const auto text = ReadFile(path, memory::kMaxDigestsBytes);
  if (!text && text.error().code() == ErrorCode::kNotFound) return std::nullopt;
  auto digests =
      text ? memory::DecodeDigests(*text) : Result<memory::MemoryDigests>(Fail(text.error()));
  if (!digests) {
    log::Warning("digests of memory cannot be read",
                 {{"file", path}, {"error", digests.error().message()}});
    return std::nullopt;
  }
  if (digests->generation != manifest.generation || digests->bytes != manifest.memory.bytes)
    return std::nullopt;
  return std::move(*digests);
}

Result<memory::Manifest> ReadManifest(const std::string& directory) {
  DORMOUSE_ASSIGN(const auto text,
                  ReadFile(directory + "/" + kManifestFile, memory::kMaxManifestBytes));
  return memory::DecodeManifest(text);
}

FilesIdentity IdentityOf(const std::string& directory, Holes holes) {
  struct stat info {};
  if (::stat(MemoryOf(directory).c_str(), &info) != 0) return {};
  FilesIdentity identity;
  identity.memory = std::to_string(info.st_ino) + " " + std::to_string(info.st_size) + " " +
                    std::to_string(info.st_mtim.tv_sec) + "." +
                    std::to_string(info.st_mtim.tv_nsec);
  uint64_t data_bytes = 0;
  bool counted = holes == Holes::kCount;
  for (const char* file : {kMemoryFile, kStoreFile}) {
    const std::string path = directory + "/" + file;
    // One that is gone takes nothing.
    if (!PathExists(path)) continue;
    identity.allocated_bytes += host::AllocatedBytes(path).value_or(0);
    if (!counted) continue;
    const auto data = host::DataBytes(path);
    counted = data.has_value();
    data_bytes += data.value_or(0);
  }
  if (counted) identity.data_bytes = data_bytes;
  return identity;
}

bool OnlyGaveSpaceBack(const FilesIdentity& marked, const FilesIdentity& seen) {
  if (!IsBelieved(marked) || !IsBelieved(seen)) return false;
  return *seen.data_bytes >= *marked.data_bytes;
}

uint64_t LostBytes(const FilesIdentity& marked, const FilesIdentity& seen) {
  if (seen.memory != marked.memory || seen.allocated_bytes >= marked.allocated_bytes) return 0;
  if (!IsBelieved(marked) || !IsBelieved(seen)) return 0;
  return *marked.data_bytes - std::min(*seen.data_bytes, *marked.data_bytes);
}

bool IsStillGood(const FilesIdentity& marked, const FilesIdentity& seen) {
  if (seen.memory.empty() || seen.memory != marked.memory) return false;
  return seen.allocated_bytes >= marked.allocated_bytes || OnlyGaveSpaceBack(marked, seen);
}

void MarkVerified(const Paths& paths, const GenerationName& generation,
                  const FilesIdentity& identity) {
  const auto mark = [&]() -> Result<> {
    if (identity.memory.empty()) return Fail(ErrorCode::kNotFound, "the memory file is gone");
    DORMOUSE_TRY(MakeDirectories(paths.Verified(generation.owner)));
    return WriteFileAtomically(paths.Verified(generation.owner, generation.number),
                               EncodeMark(identity));
  };
  if (auto marked = mark(); !marked) {
    log::Warning("memory is read once more at its next use",
                 {{"generation", generation.directory}, {"error", marked.error().message()}});
  }
}

std::optional<FilesIdentity> ReadMark(const Paths& paths, const GenerationName& generation) {
  const auto text = ReadFile(paths.Verified(generation.owner, generation.number), kMaxMarkBytes);
  if (!text) return std::nullopt;
  return DecodeMark(*text);
}

bool IsVerified(const Paths& paths, const GenerationName& generation) {
  const auto marked = ReadMark(paths, generation);
  if (!marked) return false;
  const FilesIdentity seen = IdentityOf(generation.directory, Holes::kLeave);
  if (IsStillGood(*marked, seen)) return true;
  return seen.memory == marked->memory &&
         IsStillGood(*marked, IdentityOf(generation.directory, Holes::kCount));
}

Result<> CheckNothingLost(const Paths& paths, const GenerationName& generation,
                          const FilesIdentity& seen) {
  const auto marked = ReadMark(paths, generation);
  const uint64_t lost = marked ? LostBytes(*marked, seen) : 0;
  if (lost == 0) return {};
  return Fail(ErrorCode::kCorrupt, generation.directory + " holds " +
                                       std::to_string((lost + 1023) / 1024) +
                                       " KiB less than when it was captured: the file system has "
                                       "lost extents");
}

void ForgetVerified(const Paths& paths, const GenerationName& generation) {
  if (auto removed = RemoveFile(paths.Verified(generation.owner, generation.number)); !removed) {
    log::Error("memory that is damaged stays marked as whole",
               {{"generation", generation.directory}, {"error", removed.error().message()}});
  }
}

std::shared_ptr<std::mutex> MemoryCheck::TurnOf(const std::string& directory) {
  const std::lock_guard lock(mutex_);
  std::erase_if(turns_, [](const auto& turn) { return turn.second.expired(); });
  auto turn = turns_[directory].lock();
  if (!turn) turns_[directory] = turn = std::make_shared<std::mutex>();
  return turn;
}

std::optional<Error> MemoryCheck::DamageOf(const std::string& directory,
                                           const FilesIdentity& identity) {
  const std::lock_guard lock(mutex_);
  std::erase_if(damaged_, [](const auto& each) { return !PathExists(each.first); });
  const auto found = damaged_.find(directory);
  if (found == damaged_.end() || found->second.identity != identity) return std::nullopt;
  return found->second.error;
}

void MemoryCheck::Remember(const std::string& directory, const FilesIdentity& identity,
                           const Error& error) {
  const std::lock_guard lock(mutex_);
  damaged_.insert_or_assign(directory, Damage{identity, error});
}

Result<> MemoryCheck::BeforeUse(const GenerationName& generation,
                                const memory::Manifest& manifest) {
  if (IsVerified(paths_, generation)) return {};
  const auto turn = TurnOf(generation.directory);
  const std::lock_guard lock(*turn);
  if (IsVerified(paths_, generation)) return {};
  const FilesIdentity identity = IdentityOf(generation.directory, Holes::kCount);
  if (const auto damage = DamageOf(generation.directory, identity)) return Fail(*damage);
  const auto digests = ReadDigests(generation.directory, manifest);
  if (!digests) {
    DORMOUSE_TRY(CheckNothingLost(paths_, generation, identity));
    log::Warning("memory is used that has no digests to be verified by",
                 {{"generation", generation.directory}});
    return {};
  }
  const auto began = std::chrono::steady_clock::now();
  auto verified =
      memory::VerifyMemory(MemoryOf(generation.directory), *digests, [] { return true; });
  if (!verified) {
    if (verified.error().code() == ErrorCode::kCorrupt)
      Remember(generation.directory, identity, verified.error());
    return verified;
  }
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - began);
  log::Info("memory was verified before its use",
            {{"generation", generation.directory}, {"ms", took.count()}});
  MarkVerified(paths_, generation, identity);
  return {};
}

}  // namespace dormouse
