#include "guest-agent/init/runtime_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <set>

#include "guest-agent/init/configuration_files.h"
#include "guest-agent/init/files.h"
#include "guest-agent/server/passwd.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::guest {
namespace {

constexpr size_t kTypeField = 0, kPathField = 1, kModeField = 2, kUserField = 3, kGroupField = 4,
                 kArgumentField = 6;

std::string Field(const std::vector<std::string>& words, size_t at) {
  return words.size() > at && words[at] != "-" ? words[at] : std::string();
}

mode_t ModeOf(std::string text, mode_t otherwise) {
  const size_t digit = text.find_first_of("01234567");
  if (digit == std::string::npos) return otherwise;
  return static_cast<mode_t>(std::strtoul(text.c_str() + digit, nullptr, 8)) & 07777;
}

/// Makes what is missing; what is there keeps its owner and mode.
class Maker {
 public:
  explicit Maker(std::string root) : root_(std::move(root)), users_(ReadIdentityFiles(root_)) {}

  void Directory(const std::string& path, mode_t mode, const std::string& owner = {}) {
    const std::string at = root_ + path;
    Keep(MakeDirectories(at.substr(0, at.rfind('/'))));
    if (::mkdir(at.c_str(), 0700) != 0) {
      if (errno != EEXIST) Keep(FailErrno("make " + path));
      return;
    }
    Give(at, mode, owner);
  }
  void File(const std::string& path, mode_t mode, const std::string& owner, std::string_view text) {
    const std::string at = root_ + path;
    Keep(MakeDirectories(at.substr(0, at.rfind('/'))));
    const UniqueFd made(::open(at.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!made) {
      if (errno != EEXIST) Keep(FailErrno("make " + path));
      return;
    }
    Keep(WriteSmallFile(at, text));
    Give(at, mode, owner);
  }
  void Link(const std::string& path, const std::string& to) {
    const std::string at = root_ + path;
    Keep(MakeDirectories(at.substr(0, at.rfind('/'))));
    if (::symlink(to.c_str(), at.c_str()) != 0 && errno != EEXIST) Keep(FailErrno("link " + path));
  }
  Result<void> result() { return std::move(first_); }

 private:
  /// chown clears set-id bits, so the mode comes last.
  void Give(const std::string& at, mode_t mode, const std::string& owner) {
    const auto user = ResolveUser(owner, users_);
    // A user that the image lacks (one that systemd makes as it starts a unit): root's then.
    if (user && ::chown(at.c_str(), user->uid, user->gid) != 0) Keep(FailErrno("chown " + at));
    if (::chmod(at.c_str(), mode) != 0) Keep(FailErrno("chmod " + at));
  }
  void Keep(Result<void> result) {
    if (first_ && !result) first_ = std::move(result);
  }

  const std::string root_;
  const IdentityFiles users_;
  Result<void> first_;
};

std::string OwnerOf(const std::string& user, const std::string& group) {
  if (group.empty()) return user;
  return (user.empty() ? "0" : user) + ":" + group;
}

void MakeTmpfile(const std::string& line, Maker& maker) {
  const std::vector<std::string> words = Words(line);
  if (words.size() <= kPathField || line.find('%') != std::string::npos) return;
  std::string path = words[kPathField];
  if (path.starts_with("/var/run/")) path = path.substr(4);
  if (!path.starts_with("/run/") || path.find("..") != std::string::npos) return;
  while (path.ends_with('/')) path.pop_back();
  const std::string owner = OwnerOf(Field(words, kUserField), Field(words, kGroupField));
  switch (words[kTypeField].front()) {
    case 'd':
    case 'D':
    case 'v':
    case 'q':
    case 'Q':
      maker.Directory(path, ModeOf(Field(words, kModeField), 0755), owner);
      break;
    case 'f':
    case 'F':
      maker.File(path, ModeOf(Field(words, kModeField), 0644), owner, Field(words, kArgumentField));
      break;
    case 'L':
      if (const std::string to = Field(words, kArgumentField); !to.empty()) maker.Link(path, to);
      break;
    default:
      break;
  }
}

void MakeDirectoriesOfUnit(const std::string& file, Maker& maker) {
  std::vector<std::string> directories;
  std::string user, group, mode;
  ForEachLine(file, [&](std::string_view line) {
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) return;
    const std::string_view key = line.substr(0, equals);
    const std::string value(line.substr(equals + 1));
    if (key == "RuntimeDirectory") directories = Words(value);
    if (key == "RuntimeDirectoryMode") mode = value;
    if (key == "User") user = value;
    if (key == "Group") group = value;
  });
  for (const std::string& directory : directories) {
    if (directory.find_first_of("%:") != std::string::npos ||
        directory.find("..") != std::string::npos || user.find('%') != std::string::npos) {
      continue;
    }
    maker.Directory("/run/" + directory, ModeOf(mode, 0755), OwnerOf(user, group));
  }
}

void MakeDirectoriesOfUnits(const std::string& root, Maker& maker) {
  std::set<std::string> seen;
  for (const char* above :
       {"/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}) {
    DIR* const dir = ::opendir((root + above).c_str());
    if (dir == nullptr) continue;
    while (const dirent* entry = ::readdir(dir)) {
      const std::string name(entry->d_name);
      if (!name.ends_with(".service") || name.find('@') != std::string::npos) continue;
      if (seen.insert(name).second) MakeDirectoriesOfUnit(root + above + ("/" + name), maker);
    }
    ::closedir(dir);
  }
}

}  // namespace

Result<void> MakeRuntimeFiles(const std::string& root) {
  Maker maker(root);
  maker.Directory("/run/lock", 01777);
  maker.Directory("/run/user", 0755);
  maker.Directory("/tmp", 01777);
  maker.Directory("/var/tmp", 01777);
  for (const std::string& file : ConfigurationFiles(root, "tmpfiles.d"))
    ForEachLine(file, [&](std::string_view line) { MakeTmpfile(std::string(line), maker); });
  MakeDirectoriesOfUnits(root, maker);
  return maker.result();
}

}  // namespace dormouse::guest
