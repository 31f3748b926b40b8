#include "node-agent/sandbox/memory_check.h"

#include <sys/stat.h>

#include <chrono>

#include "node-agent/sandbox/inner_paths.h"
#include "src/common/base/files.h"
#include "src/common/base/log.h"

namespace dormouse {
namespace {

constexpr size_t kMaxMarkBytes = 4096;

std::string MemoryOf(const std::string& directory) {
  return directory + "/" + kMemoryFile;
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

std::string MemoryIdentity(const std::string& directory) {
  struct stat info {};
  if (::stat(MemoryOf(directory).c_str(), &info) != 0) return "";
  return std::to_string(info.st_ino) + " " + std::to_string(info.st_size) + " " +
         std::to_string(info.st_mtim.tv_sec) + "." + std::to_string(info.st_mtim.tv_nsec) + "\n";
}

void MarkVerified(const Paths& paths, const GenerationName& generation,
                  const std::string& identity) {
  const auto mark = [&]() -> Result<> {
    if (identity.empty()) return Fail(ErrorCode::kNotFound, "the memory file is gone");
    DORMOUSE_TRY(MakeDirectories(paths.Verified(generation.owner)));
    return WriteFileAtomically(paths.Verified(generation.owner, generation.number), identity);
  };
  if (auto marked = mark(); !marked) {
    log::Warning("memory is read once more at its next use",
                 {{"generation", generation.directory}, {"error", marked.error().message()}});
  }
}

bool IsVerified(const Paths& paths, const GenerationName& generation) {
  const auto mark = ReadFile(paths.Verified(generation.owner, generation.number), kMaxMarkBytes);
  return mark && !mark->empty() && *mark == MemoryIdentity(generation.directory);
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
                                           const std::string& identity) {
  const std::lock_guard lock(mutex_);
  std::erase_if(damaged_, [](const auto& each) { return !PathExists(each.first); });
  const auto found = damaged_.find(directory);
  if (found == damaged_.end() || found->second.identity != identity) return std::nullopt;
  return found->second.error;
}

void MemoryCheck::Remember(const std::string& directory, const std::string& identity,
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
  const std::string identity = MemoryIdentity(generation.directory);
  if (const auto damage = DamageOf(generation.directory, identity)) return Fail(*damage);
  const auto digests = ReadDigests(generation.directory, manifest);
  if (!digests) {
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
  log::Info("memory was verified at its first use since the node's boot",
            {{"generation", generation.directory}, {"ms", took.count()}});
  MarkVerified(paths_, generation, identity);
  return {};
}

}  // namespace dormouse
