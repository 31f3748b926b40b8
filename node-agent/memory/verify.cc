#include "node-agent/memory/verify.h"

#include "node-agent/host/sparse_files.h"
#include "src/common/base/hash.h"

namespace dormouse::memory {
namespace {

Result<ExtentSummary> SummarizeExtents(const std::string& path) {
  ExtentSummary summary;
  DORMOUSE_ASSIGN(summary.bytes, host::SizeBytes(path));
  DORMOUSE_ASSIGN(summary.allocated_bytes, host::AllocatedBytes(path));
  return summary;
}

Result<FileSummary> SummarizeContent(const std::string& path) {
  FileSummary summary;
  DORMOUSE_ASSIGN(summary.bytes, host::SizeBytes(path));
  DORMOUSE_ASSIGN(summary.sha256, Sha256OfFile(path));
  return summary;
}

Result<> CheckSize(const std::string& path, uint64_t is, uint64_t was) {
  if (is == was) return {};
  return Fail(ErrorCode::kCorrupt, path + " has " + std::to_string(is) + " bytes, and had " +
                                       std::to_string(was) + " when it was captured");
}

Result<> CheckContent(const std::string& path, const FileSummary& was) {
  DORMOUSE_ASSIGN(const uint64_t bytes, host::SizeBytes(path));
  DORMOUSE_TRY(CheckSize(path, bytes, was.bytes));
  DORMOUSE_ASSIGN(const std::string digest, Sha256OfFile(path));
  if (digest == was.sha256) return {};
  return Fail(ErrorCode::kCorrupt,
              path + " has the SHA-256 " + digest + ", not " + was.sha256 + " as captured");
}

// Adds what is to be doubted to `doubt`.
Result<> CheckExtents(const std::string& path, const ExtentSummary& was,
                      std::optional<std::string>* doubt) {
  DORMOUSE_ASSIGN(const ExtentSummary is, SummarizeExtents(path));
  DORMOUSE_TRY(CheckSize(path, is.bytes, was.bytes));
  if (is.allocated_bytes < was.allocated_bytes && !*doubt) {
    *doubt = path + " takes " + std::to_string(is.allocated_bytes) + " bytes on disk, and took " +
             std::to_string(was.allocated_bytes) + " when it was captured";
  }
  return {};
}

}  // namespace

Result<> SummarizeFiles(const GenerationFiles& files, Manifest* manifest) {
  DORMOUSE_ASSIGN(manifest->memory, SummarizeExtents(files.memory));
  DORMOUSE_ASSIGN(manifest->config, SummarizeContent(files.config));
  DORMOUSE_ASSIGN(manifest->state, SummarizeContent(files.state));
  DORMOUSE_ASSIGN(manifest->store, SummarizeExtents(files.store));
  return {};
}

Result<std::optional<std::string>> VerifyFiles(const GenerationFiles& files,
                                               const Manifest& manifest) {
  std::optional<std::string> doubt;
  DORMOUSE_TRY(CheckExtents(files.memory, manifest.memory, &doubt));
  DORMOUSE_TRY(CheckExtents(files.store, manifest.store, &doubt));
  DORMOUSE_TRY(CheckContent(files.config, manifest.config));
  DORMOUSE_TRY(CheckContent(files.state, manifest.state));
  return doubt;
}

std::optional<std::string> Incompatibility(const Requirements& needs, const NodeOffer& offer) {
  if (needs.cpu_model != offer.cpu_model) {
    return "captured on the CPU " + needs.cpu_model + ", this node has " + offer.cpu_model;
  }
  if (const auto why = offer.refuses_vmm(needs.vmm_version)) return "its VMM: " + *why;
  const std::pair<const char*, const std::string&> artifacts[] = {
      {"VMM", needs.vmm_digest},
      {"kernel", needs.kernel_digest},
      {"initramfs", needs.initramfs_digest}};
  for (const auto& [what, digest] : artifacts) {
    if (!offer.has_artifact(digest))
      return std::string("its ") + what + " " + digest + " is not on this node";
  }
  if (!offer.has_image(needs.image_digest)) {
    return "its base image " + needs.image_digest + " is not on this node";
  }
  return std::nullopt;
}

}  // namespace dormouse::memory
