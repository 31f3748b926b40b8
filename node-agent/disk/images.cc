#include "node-agent/disk/images.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "node-agent/host/sparse_files.h"
#include "src/common/api/spec_check.h"
#include "src/common/base/files.h"
#include "src/common/base/hash.h"
#include "src/common/base/json_text.h"

namespace dormouse::disk {
namespace {

constexpr size_t kHeadBytes = (64 << 10) + 4096;
constexpr size_t kLargestCache = 16 << 20;
constexpr std::string_view kSuffixes[] = {".img", ".raw"};

struct FileFacts {
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t mtime_ns = 0;
};

std::optional<FileFacts> FactsOf(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return FileFacts{status.st_ino, static_cast<uint64_t>(status.st_size),
                   status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec};
}

Result<std::string> ReadHead(const std::string& path) {
  DORMOUSE_ASSIGN(const UniqueFd file, host::OpenFile(path, O_RDONLY));
  std::string head(kHeadBytes, '\0');
  const ssize_t got = ::pread(file.get(), head.data(), head.size(), 0);
  if (got < 0) return FailErrno("read " + path);
  head.resize(static_cast<size_t>(got));
  return head;
}

// Empty when nothing is wrong. `earlier_size` is of the same inode when its digest was taken.
std::string ProblemOf(const Image& image, std::optional<uint64_t> earlier_size) {
  const std::string what = "image " + image.name;
  const std::string has = std::to_string(image.size_bytes) + " bytes";
  if (image.size_bytes == 0) return what + " is empty";
  if (earlier_size && image.size_bytes < *earlier_size) {
    return what + " is truncated: it has " + has + " and had " + std::to_string(*earlier_size);
  }
  const auto head = ReadHead(image.path);
  if (!head) return what + " cannot be read: " + head.error().message();
  const auto stated = FileSystemBytes(*head);
  if (stated && *stated > image.size_bytes) {
    return what + " is truncated: it has " + has + " and its file system says " +
           std::to_string(*stated);
  }
  if (image.size_bytes % 512 != 0)
    return what + " is no disk image: " + has + " is no multiple of 512";
  return "";
}

}  // namespace

Images::Images(std::string directory, std::string cache_file)
    : directory_(std::move(directory)), cache_file_(std::move(cache_file)) {}

Result<> Images::LoadCache() {
  if (loaded_) return {};
  loaded_ = true;
  auto text = ReadFile(cache_file_, kLargestCache);
  if (!text) return {};  // not there yet, or unreadable: digests are taken anew
  const auto document = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return {};
  for (const auto& [path, entry] : document.items()) {
    if (!entry.is_object()) continue;
    CacheEntry cached;
    cached.inode = entry.value("inode", uint64_t{0});
    cached.size = entry.value("size", uint64_t{0});
    cached.mtime_ns = entry.value("mtimeNs", int64_t{0});
    cached.digest = entry.value("sha256", std::string());
    if (cached.digest.size() == 64) cache_[path] = std::move(cached);
  }
  return {};
}

Result<> Images::SaveCache() {
  nlohmann::json document = nlohmann::json::object();
  for (const auto& [path, entry] : cache_) {
    document[path] = {{"inode", entry.inode},
                      {"size", entry.size},
                      {"mtimeNs", entry.mtime_ns},
                      {"sha256", entry.digest}};
  }
  return WriteFileAtomically(cache_file_, JsonText(document, 1) + "\n");
}

Result<std::vector<Image>> Images::ScanLocked() {
  DORMOUSE_TRY(LoadCache());
  DORMOUSE_ASSIGN(const auto files, ListDirectory(directory_));
  std::vector<Image> images;
  for (const auto& file : files) {
    const auto suffix =
        std::find_if(std::begin(kSuffixes), std::end(kSuffixes),
                     [&](std::string_view ending) { return file.ends_with(ending); });
    if (suffix == std::end(kSuffixes)) continue;
    Image image;
    image.name = file.substr(0, file.size() - suffix->size());
    image.path = directory_ + "/" + file;
    const auto facts = FactsOf(image.path);
    if (!facts || !api::IsImageName(image.name)) continue;
    image.size_bytes = facts->size;
    const auto cached = cache_.find(image.path);
    const bool same_file = cached != cache_.end() && cached->second.inode == facts->inode;
    image.problem = ProblemOf(image, same_file ? std::optional(cached->second.size) : std::nullopt);
    if (same_file && cached->second.size == facts->size &&
        cached->second.mtime_ns == facts->mtime_ns) {
      image.digest = cached->second.digest;
    }
    const bool second =
        !images.empty() && images.back().name == image.name;  // .img wins: it sorts first
    if (!second) images.push_back(std::move(image));
  }
  std::sort(images.begin(), images.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return images;
}

Result<std::vector<Image>> Images::Scan() {
  const std::lock_guard lock(mutex_);
  return ScanLocked();
}

Result<Image> Images::Resolve(const std::string& name) {
  if (!api::IsImageName(name)) return Fail(ErrorCode::kInvalid, "'" + name + "' is no image name");
  DORMOUSE_ASSIGN(const auto images, Scan());
  for (const auto& image : images) {
    if (image.name != name) continue;
    if (!image.problem.empty()) return Fail(ErrorCode::kCorrupt, image.problem);
    if (image.digest.empty())
      return Fail(ErrorCode::kUnavailable, "image " + name + ": its digest is being computed");
    return image;
  }
  return Fail(ErrorCode::kNotFound, "image " + name + " is not in " + directory_);
}

Result<> Images::RefreshDigests(const std::function<bool()>& stop) {
  DORMOUSE_ASSIGN(const auto images, Scan());
  for (const auto& image : images) {
    if (stop()) return {};
    if (!image.digest.empty() || !image.problem.empty()) continue;
    const auto before = FactsOf(image.path);
    auto digest = Sha256OfFile(image.path);  // without the lock: it takes seconds
    const auto after = FactsOf(image.path);
    if (!digest || !before || !after || before->mtime_ns != after->mtime_ns ||
        before->size != after->size || before->inode != after->inode) {
      continue;  // being written; the next round takes it
    }
    const std::lock_guard lock(mutex_);
    cache_[image.path] = {after->inode, after->size, after->mtime_ns, *std::move(digest)};
    DORMOUSE_TRY(SaveCache());
  }
  return {};
}

}  // namespace dormouse::disk
