// Names below a directory that somebody hostile can write, as a VMM that its guest has taken over.
// The one way to open, read and make them:
//
//  - A name is looked up beneath an open directory (openat2(2)): no symbolic link, no magic link,
//    no "..", no other mount is followed.
//  - Nothing is opened for reading or writing before it was looked at: it is a regular file with
//    one link, of the owner and size that are expected. A FIFO or a device is never opened, so it
//    can neither hang us nor do anything.
//  - Who made a file may still hold a descriptor of it, and write on. So such a file is never
//    renamed to become ours: it is copied into a new one.
//
// Thread-safe. An error of kCorrupt says that the name is there and is not what it should be.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {

/// An open directory. It stays the same one whatever becomes of its name.
class Directory {
 public:
  /// `path` is trusted up to its last component, which may be a mount point, but no link.
  static Result<Directory> Open(const std::string& path);
  /// A directory that is there, beneath this one; `owner` is who it must belong to.
  [[nodiscard]] Result<Directory> OpenBeneath(const std::string& name, uid_t owner) const;
  /// Makes a directory beneath this one, which then belongs to `owner`, user and group.
  /// kAlreadyExists where anything has that name.
  [[nodiscard]] Result<Directory> Make(const std::string& name, mode_t mode, uid_t owner) const;

  [[nodiscard]] int fd() const { return fd_.get(); }
  /// As it was opened: for messages, not for opening.
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string Shown(const std::string& name) const { return path_ + "/" + name; }

 private:
  Directory(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  UniqueFd fd_;
  std::string path_;
};

inline constexpr uint64_t kAnySize = std::numeric_limits<uint64_t>::max();
/// What a file must be, or it is not opened.
struct ExpectedFile {
  uid_t owner = 0;
  uint64_t max_bytes = 0;  ///< kAnySize for who reads no more than some of it
  uint64_t min_bytes = 0;
};

/// Whatever has that name, by O_PATH: it can be looked at, and connected to by /proc/self/fd, and
/// nothing has happened to it yet. A link is kCorrupt.
Result<UniqueFd> LookUp(const Directory& directory, const std::string& name);

/// The file, for `access` (O_RDONLY or O_RDWR); never waits.
Result<UniqueFd> OpenBeneath(const Directory& directory, const std::string& name, int access,
                             const ExpectedFile& expected);

/// The last component of `path`, beneath its directory.
Result<UniqueFd> OpenBeneath(const std::string& path, int access, const ExpectedFile& expected);

/// The whole content.
Result<std::string> ReadBeneath(const Directory& directory, const std::string& name,
                                const ExpectedFile& expected);

/// Makes `to`, a new file of ours (0600), a copy of the file as it is now: by shared extents where
/// the file system can (true), else by copying its data and leaving the holes (false). `to` must
/// not be there; its size is within what is expected.
Result<bool> CopyBeneath(const Directory& directory, const std::string& name,
                         const ExpectedFile& expected, const std::string& to);

/// Makes a new file with `content`, of `mode`, which then belongs to `owner`, user and group.
/// kAlreadyExists where anything has that name.
Result<> MakeBeneath(const Directory& directory, const std::string& name, std::string_view content,
                     mode_t mode, uid_t owner);

}  // namespace dormouse::host
