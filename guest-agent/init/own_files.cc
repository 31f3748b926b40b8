#include "guest-agent/init/own_files.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "guest-agent/init/files.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::guest {
namespace {

/// The end of a link that leads nowhere may lie in a directory of /run that nobody has made yet.
void MakeParentOfLink(const std::string& root, const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = ::readlink(path.c_str(), target, sizeof(target));
  if (length <= 0 || length == static_cast<ssize_t>(sizeof(target))) return;
  std::string end(target, static_cast<size_t>(length));
  end = end.front() == '/' ? root + end : path.substr(0, path.rfind('/') + 1) + end;
  (void)MakeDirectories(end.substr(0, end.rfind('/')));
}

Result<UniqueFd> FileToStandOn(const std::string& root, const std::string& path) {
  UniqueFd file(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!file && errno == ENOENT) {
    MakeParentOfLink(root, path);
    const UniqueFd made(::open(path.c_str(), O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0644));
    if (!made) return FailErrno("make " + path);
    file.Reset(::open(path.c_str(), O_PATH | O_CLOEXEC));
  }
  struct stat info {};
  if (!file || ::fstat(file.get(), &info) != 0) return FailErrno("open " + path);
  if (!S_ISREG(info.st_mode)) return Fail(ErrorCode::kConflict, path + " is no file");
  return file;
}

std::string ImageFile(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return {};
  return ReadSmallFile(path).value_or("");
}

}  // namespace

Result<OwnFiles> OwnFiles::Make(std::string root, std::string directory) {
  const std::string path = root + directory;
  DORMOUSE_TRY(MakeDirectories(path));
  if (::mount("tmpfs", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
              "mode=0755,size=8m,nr_inodes=64") != 0) {
    return FailErrno("mount tmpfs at " + path);
  }
  return OwnFiles(std::move(root), std::move(directory));
}

Result<void> OwnFiles::Put(const std::string& path, std::string_view text,
                           std::vector<std::string>& notes) {
  auto file = std::find_if(files_.begin(), files_.end(),
                           [&path](const File& each) { return each.path == path; });
  if (file == files_.end()) {
    files_.push_back({path, ImageFile(root_ + path), false});
    file = files_.end() - 1;
  }
  const std::string source = root_ + directory_ + path.substr(path.rfind('/'));
  DORMOUSE_TRY(WriteSmallFile(source, text));
  if (file->over) return {};
  const auto target = FileToStandOn(root_, root_ + path);
  if (!target) {
    notes.push_back(target.error().message());
    return {};
  }
  const std::string at = "/proc/self/fd/" + std::to_string(target->get());
  if (::mount(source.c_str(), at.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return FailErrno("mount a file over " + path);
  }
  file->over = true;
  return {};
}

std::string OwnFiles::Image(const std::string& path) const {
  for (const File& file : files_) {
    if (file.path == path) return file.image;
  }
  return ImageFile(root_ + path);
}

bool OwnFiles::Covers(const std::string& path) const {
  return std::any_of(files_.begin(), files_.end(),
                     [&path](const File& each) { return each.path == path && each.over; });
}

}  // namespace dormouse::guest
