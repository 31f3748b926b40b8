#include "node-agent/disk/base_device.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "node-agent/host/sparse_files.h"
#include "src/common/base/files.h"
#include "src/common/base/hash.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::disk {
namespace {

constexpr std::string_view kBasePrefix = "dormouse-base-";
constexpr std::string_view kFileSuffix = ".img";
constexpr size_t kShortDigest = 12;
constexpr size_t kMaxNoteBytes = 4096;

// Beside a base: which file it was whose content was found to be what its digest says.
std::string CheckedNote(const std::string& file) {
  return file + ".checked";
}

// Takes kBusy for "others still use it".
Result<bool> Released(Result<> result) {
  if (result) return true;
  if (result.error().code() == ErrorCode::kBusy) return false;
  return Fail(result.error());
}

// Of a file that nobody has written since: where it was hard-linked, the operator could.
Result<std::string> IdentityOf(const std::string& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return FailErrno("stat " + file);
  const auto time = [](const timespec& at) {
    return " " + std::to_string(at.tv_sec) + "." + std::to_string(at.tv_nsec);
  };
  return std::to_string(info.st_ino) + " " + std::to_string(info.st_size) + time(info.st_mtim) +
         time(info.st_ctim) + "\n";
}

Result<> CheckContent(const std::string& file, const std::string& digest, const std::string& what) {
  DORMOUSE_ASSIGN(const std::string found, Sha256OfFile(file));
  if (found == digest) return {};
  return Fail(ErrorCode::kCorrupt,
              what + " is damaged: its content has the digest " + found + ", not " + digest);
}

}  // namespace

std::string BaseLoopTag(const std::string& digest) {
  return std::string(kBasePrefix) + digest.substr(0, kShortDigest);
}

std::string BaseFileName(const std::string& digest) {
  return digest + std::string(kFileSuffix);
}

BaseDevices::BaseDevices(host::DeviceMapper& dm, host::LoopDevices& loops,
                         std::string bases_directory)
    : dm_(dm), loops_(loops), bases_directory_(std::move(bases_directory)) {}

std::mutex& BaseDevices::LockOf(std::string_view digest) {
  const std::lock_guard lock(mutex_);
  auto& mutex = locks_[std::string(digest.substr(0, kShortDigest))];
  if (!mutex) mutex = std::make_unique<std::mutex>();
  return *mutex;
}

Result<Base> BaseDevices::Pin(const Image& image) {
  if (!IsSha256(image.digest))
    return Fail(ErrorCode::kInvalid, "pin image " + image.name + ": it has no digest");
  const std::lock_guard lock(LockOf(image.digest));
  if (auto found = Find(image.digest)) {
    DORMOUSE_TRY(CheckContentLocked(*found));
    return found;
  }
  DORMOUSE_TRY(MakeDirectories(bases_directory_));
  const std::string file = bases_directory_ + "/" + BaseFileName(image.digest);
  const std::string unfinished = file + ".new";
  DORMOUSE_TRY(RemoveFile(unfinished));
  auto cloned = host::Reflink(image.path, unfinished);
  if (!cloned && cloned.error().code() == ErrorCode::kUnsupported) {
    if (::link(image.path.c_str(), unfinished.c_str()) == 0) {
      cloned = Result<>();
    } else {
      cloned = host::CopySparse(image.path, unfinished);
    }
  }
  if (!cloned) return Fail(cloned.error().Wrap("pin image " + image.name));
  if (auto same = CheckContent(unfinished, image.digest, "image " + image.name); !same) {
    DORMOUSE_TRY(RemoveFile(unfinished));
    return Fail(same.error());
  }
  DORMOUSE_TRY(SyncFile(unfinished));
  if (::rename(unfinished.c_str(), file.c_str()) != 0) return FailErrno("rename " + unfinished);
  DORMOUSE_ASSIGN(const std::string identity, IdentityOf(file));
  DORMOUSE_TRY(WriteFileAtomically(CheckedNote(file), identity));  // syncs the directory
  return Find(image.digest);
}

Result<> BaseDevices::CheckContentLocked(const Base& base) {
  DORMOUSE_ASSIGN(const std::string identity, IdentityOf(base.file));
  const auto checked = ReadFile(CheckedNote(base.file), kMaxNoteBytes);
  if (checked && *checked == identity) return {};
  DORMOUSE_TRY(CheckContent(base.file, base.digest, "base " + base.digest));
  return WriteFileAtomically(CheckedNote(base.file), identity);
}

Result<Base> BaseDevices::Find(const std::string& digest) {
  Base base{digest, bases_directory_ + "/" + BaseFileName(digest), 0};
  DORMOUSE_ASSIGN(base.size_bytes, host::SizeBytes(base.file));
  return base;
}

Result<std::vector<Base>> BaseDevices::List() {
  DORMOUSE_ASSIGN(const auto files, ListDirectory(bases_directory_));
  std::vector<Base> bases;
  for (const auto& file : files) {
    const std::string digest = file.substr(0, file.find('.'));
    if (!IsSha256(digest) || file != BaseFileName(digest)) continue;
    DORMOUSE_ASSIGN(auto base, Find(digest));
    bases.push_back(std::move(base));
  }
  return bases;
}

Result<> BaseDevices::Unpin(const std::string& digest) {
  // Its blocks are given back when this is closed, after the lock: that takes seconds for a large
  // one, and whoever starts from the same image waits for the lock.
  UniqueFd content;
  const std::lock_guard lock(LockOf(digest));
  DORMOUSE_ASSIGN(const auto origins, dm_.List(BaseLoopTag(digest) + "-"));
  for (const auto& origin : origins) {
    DORMOUSE_ASSIGN(const auto name, host::DmName::Parse(origin.name));
    DORMOUSE_TRY(dm_.Remove(name));
  }
  DORMOUSE_ASSIGN(const bool released, ReleaseLoopLocked(BaseLoopTag(digest)));
  if (!released) return Fail(ErrorCode::kBusy, "base " + digest + " is in use");
  const std::string file = bases_directory_ + "/" + BaseFileName(digest);
  content.Reset(::open(file.c_str(), O_PATH | O_CLOEXEC));
  DORMOUSE_TRY(RemoveFile(CheckedNote(file)));
  return RemoveFile(file);
}

Result<host::LoopDevice> BaseDevices::EnsureLoop(const Base& base) {
  const std::lock_guard lock(LockOf(base.digest));
  return EnsureLoopLocked(base);
}

Result<Origin> BaseDevices::EnsureOrigin(const Base& base, uint64_t disk_bytes) {
  const std::lock_guard lock(LockOf(base.digest));
  return EnsureOriginLocked(base, disk_bytes);
}

Result<> BaseDevices::WithOrigin(const Base& base, uint64_t disk_bytes,
                                 const std::function<Result<>(const Origin&)>& work) {
  const std::lock_guard lock(LockOf(base.digest));
  DORMOUSE_ASSIGN(const Origin origin, EnsureOriginLocked(base, disk_bytes));
  return work(origin);
}

Result<host::LoopDevice> BaseDevices::EnsureLoopLocked(const Base& base) {
  DORMOUSE_ASSIGN(const uint64_t size, host::SizeBytes(base.file));
  if (size != base.size_bytes) {
    return Fail(ErrorCode::kCorrupt, "base " + base.digest + " is truncated: it has " +
                                         std::to_string(size) + " bytes and had " +
                                         std::to_string(base.size_bytes));
  }
  DORMOUSE_TRY(CheckContentLocked(base));
  return loops_.Attach(base.file,
                       {BaseLoopTag(base.digest), /*read_only=*/true, /*direct_io=*/false});
}

Result<Origin> BaseDevices::EnsureOriginLocked(const Base& base, uint64_t disk_bytes) {
  if (disk_bytes < base.size_bytes || disk_bytes % host::kSectorBytes != 0) {
    return Fail(ErrorCode::kInvalid,
                "disk of " + std::to_string(disk_bytes) + " bytes: the base image has " +
                    std::to_string(base.size_bytes) + ", a disk is no smaller and whole sectors");
  }
  DORMOUSE_ASSIGN(const auto loop, EnsureLoopLocked(base));
  const uint64_t sectors = disk_bytes / host::kSectorBytes;
  if (disk_bytes == base.size_bytes) return Origin{loop.number, sectors};
  DORMOUSE_ASSIGN(
      const auto number,
      dm_.CreateLinearZero(host::DmName::OriginOf(base.digest, sectors),
                           {loop.number, base.size_bytes / host::kSectorBytes, sectors}));
  return Origin{number, sectors};
}

Result<bool> BaseDevices::ReleaseLoopLocked(const std::string& tag) {
  DORMOUSE_ASSIGN(const auto loop, loops_.FindByTag(tag));
  if (!loop) return true;
  return Released(loops_.Detach(*loop));
}

Result<int> BaseDevices::ReleaseUnused() {
  int count = 0;
  DORMOUSE_ASSIGN(const auto origins, dm_.List(kBasePrefix));
  for (const auto& origin : origins) {
    DORMOUSE_ASSIGN(const auto name, host::DmName::Parse(origin.name));
    const std::lock_guard lock(LockOf(origin.name.substr(kBasePrefix.size(), kShortDigest)));
    DORMOUSE_ASSIGN(const bool released, Released(dm_.Remove(name)));
    count += released ? 1 : 0;
  }
  DORMOUSE_ASSIGN(const auto loops, loops_.List(kBasePrefix));
  for (const auto& loop : loops) {
    const std::lock_guard lock(LockOf(loop.tag.substr(kBasePrefix.size(), kShortDigest)));
    DORMOUSE_ASSIGN(const bool released, Released(loops_.Detach(loop)));
    count += released ? 1 : 0;
  }
  return count;
}

}  // namespace dormouse::disk
