#include "node-agent/vmm/version.h"

#include <charconv>

namespace dormouse::vmm {
namespace {

constexpr size_t kMaxVersionBytes = 256;

// "<digits>.<digits>" at the start of `text`, an optional "v" before it.
bool ParseNumbers(std::string_view text, VmmVersion* out) {
  if (text.starts_with('v')) text.remove_prefix(1);
  const char* end = text.data() + text.size();
  const auto major = std::from_chars(text.data(), end, out->major);
  if (major.ec != std::errc() || major.ptr == end || *major.ptr != '.') return false;
  const auto minor = std::from_chars(major.ptr + 1, end, out->minor);
  if (minor.ec != std::errc()) return false;
  return minor.ptr == end || *minor.ptr == '.' || *minor.ptr == '-' || *minor.ptr == ' ';
}

bool IsPrintable(std::string_view text) {
  for (const char c : text) {
    if (c < 0x20 || c > 0x7e) return false;
  }
  return true;
}

}  // namespace

std::string VmmVersion::Short() const {
  return std::to_string(major) + "." + std::to_string(minor);
}

Result<VmmVersion> ParseVersionOutput(std::string_view output) {
  const std::string_view line = output.substr(0, output.find('\n'));
  constexpr std::string_view kPrefix = "cloud-hypervisor ";
  VmmVersion version;
  if (line.size() > kMaxVersionBytes || !IsPrintable(line) || !line.starts_with(kPrefix) ||
      !ParseNumbers(line.substr(kPrefix.size()), &version)) {
    return Fail(ErrorCode::kInvalid, "not a version line of cloud-hypervisor");
  }
  version.build = line.substr(kPrefix.size());
  return version;
}

Result<VmmVersion> VersionFromPing(std::string_view build_version, std::string_view version) {
  VmmVersion parsed;
  if (build_version.size() > kMaxVersionBytes || !IsPrintable(build_version) ||
      !ParseNumbers(version, &parsed)) {
    return Fail(ErrorCode::kCorrupt, "vmm.ping: not a version");
  }
  parsed.build = build_version;
  return parsed;
}

Result<Admission> Admit(const VmmVersion& version) {
  if (version.major == 53) return version.minor == 0 ? Admission::kFull : Admission::kStockOnly;
  if (version.major == 52) return Admission::kStockOnly;
  return Fail(ErrorCode::kUnsupported,
              "cloud-hypervisor " + version.Short() + " (" + version.build +
                  ") is not supported: v53.0 is, v52 without fast suspend");
}

}  // namespace dormouse::vmm
