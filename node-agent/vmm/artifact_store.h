// What a VM needs to run again, kept by digest: VMM binary, kernel, initramfs. A sleeping sandbox
// names the digests it was made with, so an upgrade of the node never strands it.
//
// Layout: <root>/<sha256>/<name>, directories 0755, files 0555, owned by the agent, never changed.
// Thread-safe and crash-safe: a file appears by rename after fsync, so what is there is whole.
#pragma once

#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse::vmm {

struct Artifact {
  std::string sha256;  ///< 64 lower-case hex digits
  std::string path;
};

class ArtifactStore {
 public:
  explicit ArtifactStore(std::string root) : root_(std::move(root)) {}

  /// Puts a copy of `source` into the store; success when it is there. A reflink where the file
  /// system has them, else a copy; never a hard link: its content must not change with the
  /// source's.
  Result<Artifact> Keep(const std::string& source, std::string_view name) const;
  /// kNotFound when it is not kept. Does not read the file.
  Result<Artifact> Find(std::string_view sha256, std::string_view name) const;

 private:
  std::string root_;
};

/// Where cloud-hypervisor is: `override_path` ($CLOUD_HYPERVISOR) if not empty, else the first
/// executable of that name in `search_path` ($PATH). kNotFound says where it was looked for.
Result<std::string> FindVmmBinary(std::string_view override_path, std::string_view search_path);

/// Runs `<binary> --version` (2 s at most, no shell, nothing inherited) and parses what it says.
Result<std::string> ReadVersionOutput(const std::string& binary);

}  // namespace dormouse::vmm
