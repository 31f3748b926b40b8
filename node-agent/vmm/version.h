// Which Cloud Hypervisor this is, and what we may ask of it. Pure; thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse::vmm {

struct VmmVersion {
  unsigned major = 0;
  unsigned minor = 0;
  std::string build;  ///< as it calls itself: "v53.0", "v53.0-12-gabc-dirty", "v53.0 (fake)"

  /// "53.0", what is recorded beside a snapshot and compared.
  [[nodiscard]] std::string Short() const;
  friend bool operator==(const VmmVersion&, const VmmVersion&) = default;
};

/// The first line of `cloud-hypervisor --version`. kInvalid for anything else than its form.
Result<VmmVersion> ParseVersionOutput(std::string_view output);
/// `build_version` and `version` of vmm.ping, the latter always plain semver.
Result<VmmVersion> VersionFromPing(std::string_view build_version, std::string_view version);

/// What an admitted version is trusted with.
enum class Admission {
  kFull,       ///< state-only snapshots and copy-on-write restores, proven byte for byte: v53.0
  kStockOnly,  ///< vm.snapshot and a Copy restore only: v52 (no block drain on pause), fix releases
               ///< of v53
};

/// kUnsupported, naming the version and what is supported, for all others.
Result<Admission> Admit(const VmmVersion& version);

}  // namespace dormouse::vmm
