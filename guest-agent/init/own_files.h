// Files that are the machine's own and not its image's: /etc/hostname, hosts, resolv.conf and
// machine-id. They lie in memory and are mounted over those of the disk, as container runtimes do
// it, so that a start writes to no disk, and a disk that is full or read-only keeps no machine
// away.
//
// On PID 1's thread only; blocking, but never on what the disk holds in place of a file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"

namespace dormouse::guest {

class OwnFiles {
 public:
  /// `root` is "" for "/"; `directory`, below it, is made, and a small tmpfs mounted there: one
  /// that no program of the guest fills.
  [[nodiscard]] static Result<OwnFiles> Make(std::string root, std::string directory);

  /// From now on `path` (absolute, below the root) reads as `text`. The first time it is mounted
  /// over what is there; where nothing is, an empty file is made, and a link that leads nowhere
  /// gets its end. What a full or read-only disk keeps from being made, or what is no file, is
  /// added to `notes`, and the rest goes on.
  [[nodiscard]] Result<void> Put(const std::string& path, std::string_view text,
                                 std::vector<std::string>& notes);

  /// What the image has at `path`: what it had before Put; "" where it has nothing.
  [[nodiscard]] std::string Image(const std::string& path) const;
  /// Whether Put has mounted over it.
  [[nodiscard]] bool Covers(const std::string& path) const;

 private:
  struct File {
    std::string path;
    std::string image;  ///< what it was before
    bool over = false;  ///< it is mounted
  };
  OwnFiles(std::string root, std::string directory)
      : root_(std::move(root)), directory_(std::move(directory)) {}

  std::string root_;
  std::string directory_;
  std::vector<File> files_;
};

}  // namespace dormouse::guest
