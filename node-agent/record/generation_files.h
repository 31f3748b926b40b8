// Where a generation lies, and the names of its files: memory/manifest.h says what is in them.
// Pure values.
#pragma once

#include <string>

#include "node-agent/record/paths.h"
#include "node-agent/record/record.h"

namespace dormouse {

/// Where a generation of a sandbox lies; 0 is the template that it was cloned from.
[[nodiscard]] inline std::string GenerationOf(const Paths& paths, const Record& record,
                                              uint64_t number) {
  return number == 0 && record.origin ? paths.Template(record.origin->template_uid)
                                      : paths.Generation(record.uid, number);
}
/// Where a capture of a sandbox goes.
[[nodiscard]] inline std::string CaptureDirectory(const Paths& paths, const Record& record) {
  return record.capture_for ? paths.Template(record.capture_for->template_uid)
                            : paths.Generation(record.uid, record.generations);
}

// In a generation.
inline constexpr char kMemoryFile[] = "memory";
inline constexpr char kConfigFile[] = "config.json";
inline constexpr char kStateFile[] = "state.json";
inline constexpr char kStoreFile[] = "store.cow";
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kDigestsFile[] = "memory.digests";
inline constexpr char kParentDigestsFile[] = "parent.digests";  ///< a link; the parent itself goes

// In Paths::Drop: the VMM's own name for it.
inline constexpr char kStockMemoryFile[] = "memory-ranges";

}  // namespace dormouse
