// Is a generation what its manifest says, and can this node run it? Asked before every start; reads
// no memory. (VerifyMemory in digests.h does; its caller decides when.)
//
// Thread-safe.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "node-agent/memory/manifest.h"
#include "src/common/base/result.h"

namespace dormouse::memory {

/// The paths of a generation's files.
struct GenerationFiles {
  std::string memory, config, state, store;
};

/// What the files are now, for the manifest of a generation that is being written; after their
/// fsync, as until then a file system may count blocks that it gives back.
Result<> SummarizeFiles(const GenerationFiles& files, Manifest* manifest);

/// Sizes of all files, digests of config and state. kCorrupt saying which file differs, in what;
/// kNotFound naming the one that is missing. Otherwise a doubt, or none: a file takes less on disk
/// than when it was captured, as after its extents were lost. Only VerifyMemory can tell then.
Result<std::optional<std::string>> VerifyFiles(const GenerationFiles& files,
                                               const Manifest& manifest);

/// What this node offers to a generation.
struct NodeOffer {
  std::string cpu_model;
  /// Why its agent drives no VMM of that version; nothing when it does.
  std::function<std::optional<std::string>(std::string_view version)> refuses_vmm;
  std::function<bool(std::string_view digest)> has_artifact;  ///< VMM, kernel, initramfs
  std::function<bool(std::string_view digest)> has_image;
};
/// Why this node cannot run a generation, in a sentence for status; nothing when it can. The one
/// judgement of each start, and of what a template says before anybody tries. Asks the offer, and
/// nothing else.
[[nodiscard]] std::optional<std::string> Incompatibility(const Requirements& needs,
                                                         const NodeOffer& offer);

}  // namespace dormouse::memory
