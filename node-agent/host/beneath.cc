#include "node-agent/host/beneath.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "node-agent/host/sparse_files.h"
#include "src/common/base/files.h"

namespace dormouse::host {
namespace {

tl::unexpected<Error> NotAsExpected(const std::string& shown, const std::string& why) {
  return Fail(ErrorCode::kCorrupt, shown + " " + why);
}

Result<UniqueFd> OpenName(const Directory& directory, const std::string& name, uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
  UniqueFd fd(
      static_cast<int>(::syscall(SYS_openat2, directory.fd(), name.c_str(), &how, sizeof(how))));
  if (fd) return fd;
  const std::string shown = directory.Shown(name);
  if (errno == ELOOP) return NotAsExpected(shown, "is a symbolic link");
  if (errno == EXDEV) return NotAsExpected(shown, "leads out of its directory");
  if (errno == ENOTDIR) return NotAsExpected(shown, "is no directory");
  return FailErrno("open " + shown);
}

Result<> Check(int fd, const ExpectedFile& expected, const std::string& shown) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return FailErrno("stat " + shown);
  if (!S_ISREG(info.st_mode)) return NotAsExpected(shown, "is no regular file");
  if (info.st_nlink != 1)
    return NotAsExpected(shown, "has " + std::to_string(info.st_nlink) + " links");
  if (info.st_uid != expected.owner)
    return NotAsExpected(shown, "belongs to user " + std::to_string(info.st_uid));
  const auto bytes = static_cast<uint64_t>(info.st_size);
  if (bytes < expected.min_bytes || bytes > expected.max_bytes)
    return NotAsExpected(shown, "has " + std::to_string(bytes) + " bytes");
  return {};
}

Result<> GiveTo(int fd, uid_t owner, const std::string& shown) {
  if (owner != ::geteuid() && ::fchown(fd, owner, owner) != 0) return FailErrno("chown " + shown);
  return {};
}

}  // namespace

Result<Directory> Directory::Open(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return FailErrno("open " + path);
  return Directory(std::move(fd), path);
}

Result<Directory> Directory::OpenBeneath(const std::string& name, uid_t owner) const {
  DORMOUSE_ASSIGN(UniqueFd fd, OpenName(*this, name, O_RDONLY | O_DIRECTORY));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return FailErrno("stat " + Shown(name));
  if (info.st_uid != owner)
    return NotAsExpected(Shown(name), "belongs to user " + std::to_string(info.st_uid));
  return Directory(std::move(fd), Shown(name));
}

Result<Directory> Directory::Make(const std::string& name, mode_t mode, uid_t owner) const {
  if (::mkdirat(fd(), name.c_str(), mode) != 0) return FailErrno("mkdir " + Shown(name));
  DORMOUSE_ASSIGN(Directory made, OpenBeneath(name, ::geteuid()));
  DORMOUSE_TRY(GiveTo(made.fd(), owner, made.path()));
  return made;
}

Result<UniqueFd> LookUp(const Directory& directory, const std::string& name) {
  return OpenName(directory, name, O_PATH);
}

Result<UniqueFd> OpenBeneath(const Directory& directory, const std::string& name, int access,
                             const ExpectedFile& expected) {
  const std::string shown = directory.Shown(name);
  DORMOUSE_ASSIGN(const UniqueFd found, LookUp(directory, name));
  DORMOUSE_TRY(Check(found.get(), expected, shown));
  // What was looked at, whoever has the name by now. O_NONBLOCK: its owner may hold a lease of it
  // (fcntl(2), F_SETLEASE), which others' open() would wait for.
  const std::string held = "/proc/self/fd/" + std::to_string(found.get());
  UniqueFd file(::open(held.c_str(), access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file) return FailErrno("open " + shown);
  return file;
}

Result<UniqueFd> OpenBeneath(const std::string& path, int access, const ExpectedFile& expected) {
  const auto slash = path.find_last_of('/');
  DORMOUSE_ASSIGN(const Directory directory, Directory::Open(path.substr(0, slash)));
  return OpenBeneath(directory, path.substr(slash + 1), access, expected);
}

Result<std::string> ReadBeneath(const Directory& directory, const std::string& name,
                                const ExpectedFile& expected) {
  DORMOUSE_ASSIGN(const UniqueFd file, OpenBeneath(directory, name, O_RDONLY, expected));
  // It may have grown, and be cut, since it was looked at.
  DORMOUSE_ASSIGN(std::string content,
                  ReadDescriptor(file.get(), expected.max_bytes, directory.Shown(name)));
  if (content.size() < expected.min_bytes)
    return NotAsExpected(directory.Shown(name), "became shorter while it was read");
  return content;
}

Result<bool> CopyBeneath(const Directory& directory, const std::string& name,
                         const ExpectedFile& expected, const std::string& to) {
  DORMOUSE_ASSIGN(const UniqueFd file, OpenBeneath(directory, name, O_RDONLY, expected));
  DORMOUSE_ASSIGN(const UniqueFd copy, OpenFile(to, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW));
  const auto fill = [&]() -> Result<bool> {
    DORMOUSE_ASSIGN(const bool shared, CloneContent(file.get(), copy.get(), expected.max_bytes));
    // It may have grown, or been cut, since it was looked at: the copy is what counts.
    DORMOUSE_TRY(Check(copy.get(), {::geteuid(), expected.max_bytes, expected.min_bytes}, to));
    return shared;
  };
  auto filled = fill();
  if (filled) return filled;
  (void)RemoveFile(to);
  return Fail(filled.error().Wrap("copy " + directory.Shown(name)));
}

Result<> MakeBeneath(const Directory& directory, const std::string& name, std::string_view content,
                     mode_t mode, uid_t owner) {
  const std::string shown = directory.Shown(name);
  const UniqueFd file(::openat(directory.fd(), name.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!file) return FailErrno("make " + shown);
  if (auto written = WriteAll(file.get(), content); !written)
    return Fail(written.error().Wrap(shown));
  return GiveTo(file.get(), owner, shown);
}

}  // namespace dormouse::host
