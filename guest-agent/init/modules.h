// The kernel modules that the initramfs carries (guest-agent/make-initramfs writes them).
//
// /modules/list holds lines "<stage> <file>", in the order that their dependencies ask for. PID 1
// loads a stage when it needs it: disk, fs-<type>, net, rng, socket, transport.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::guest {

class ModuleSet {
 public:
  /// Opens every file at once, so that the directory may go with the initramfs. No list: no
  /// modules, for a kernel that has all built in.
  [[nodiscard]] static Result<ModuleSet> Open(const std::string& directory);

  /// finit_module(2) for each of the stage; one that is loaded already is fine.
  [[nodiscard]] Result<void> Load(std::string_view stage);

 private:
  struct Module {
    std::string stage;
    std::string file;
    UniqueFd fd;  ///< none once loaded
  };
  std::vector<Module> modules_;
};

/// The list's text as (stage, file) pairs. kInvalid for a line that is not two words, or a file
/// with a '/'.
[[nodiscard]] Result<std::vector<std::pair<std::string, std::string>>> ParseModuleList(
    std::string_view text);

}  // namespace dormouse::guest
