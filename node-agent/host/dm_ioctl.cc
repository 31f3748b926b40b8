#include "node-agent/host/dm_ioctl.h"

#include <sys/ioctl.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

namespace dormouse::host {
namespace {

constexpr size_t kFirstBufferBytes = 16 << 10;
constexpr size_t kLargestBufferBytes = 64 << 20;
// libdevmapper.h: DM_UDEV_DISABLE_{DM,SUBSYSTEM,DISK,OTHER}_RULES, DISABLE_LIBRARY_FALLBACK and
// PRIMARY_SOURCE, in the upper half of the cookie; the lower half, a semaphore's key, stays 0.
constexpr uint32_t kUdevFlags = (0x01u | 0x02u | 0x04u | 0x08u | 0x20u | 0x40u) << 16;

size_t AlignUp8(size_t value) {
  return (value + 7) & ~size_t{7};
}

// A bounded C string at `offset` of `bytes`; the kernel terminates it, but nothing is taken on
// trust.
std::string TextAt(const char* bytes, size_t offset, size_t limit) {
  return offset >= limit ? std::string()
                         : std::string(bytes + offset, ::strnlen(bytes + offset, limit - offset));
}

}  // namespace

DmRequest::DmRequest(std::string_view name, std::string_view uuid, uint32_t flags)
    : buffer_(kFirstBufferBytes / sizeof(uint64_t), 0) {
  dm_ioctl* header = mutable_header();
  header->version[0] = 4;  // 4.0.0: any kernel of the last 15 years accepts it
  header->data_start = static_cast<uint32_t>(AlignUp8(sizeof(dm_ioctl)));
  header->flags = flags;
  name.copy(header->name, sizeof(header->name) - 1);
  uuid.copy(header->uuid, sizeof(header->uuid) - 1);
}

dm_ioctl* DmRequest::mutable_header() {
  return reinterpret_cast<dm_ioctl*>(buffer_.data());
}
const dm_ioctl& DmRequest::header() const {
  return *reinterpret_cast<const dm_ioctl*>(buffer_.data());
}

void DmRequest::SetTargets(const std::vector<DmTarget>& targets) {
  size_t needed = header().data_start;
  for (const auto& target : targets)
    needed += AlignUp8(sizeof(dm_target_spec) + target.parameters.size() + 1);
  if (needed > buffer_.size() * sizeof(uint64_t)) buffer_.resize(needed / sizeof(uint64_t) + 1, 0);
  mutable_header()->target_count = static_cast<uint32_t>(targets.size());
  char* at = reinterpret_cast<char*>(buffer_.data()) + header().data_start;
  for (const auto& target : targets) {
    auto* spec = reinterpret_cast<dm_target_spec*>(at);
    spec->sector_start = target.start_sector;
    spec->length = target.sectors;
    target.type.copy(spec->target_type, sizeof(spec->target_type) - 1);
    target.parameters.copy(at + sizeof(dm_target_spec), target.parameters.size());
    // When loading, `next` counts from this spec; in a status it counts from the first.
    spec->next =
        static_cast<uint32_t>(AlignUp8(sizeof(dm_target_spec) + target.parameters.size() + 1));
    at += spec->next;
  }
}

void DmRequest::DisableUdevRules() {
  mutable_header()->event_nr = kUdevFlags;
}

Result<> DmRequest::Issue(int control, unsigned long command, std::string_view what) {
  for (;;) {
    mutable_header()->data_size = static_cast<uint32_t>(buffer_.size() * sizeof(uint64_t));
    const std::vector<uint64_t> request = buffer_;
    if (::ioctl(control, command, buffer_.data()) != 0) return FailErrno(what);
    if ((header().flags & DM_BUFFER_FULL_FLAG) == 0) return {};
    if (request.size() * sizeof(uint64_t) >= kLargestBufferBytes) {
      return Fail(ErrorCode::kInternal, std::string(what) + ": the answer does not end");
    }
    buffer_ = request;
    buffer_.resize(request.size() * 4, 0);
  }
}

Result<std::vector<DmTarget>> DmRequest::Targets() const {
  std::vector<DmTarget> targets;
  const char* bytes = reinterpret_cast<const char*>(buffer_.data());
  const size_t limit = buffer_.size() * sizeof(uint64_t);
  const size_t start = header().data_start;
  size_t offset = start;
  for (uint32_t i = 0; i < header().target_count; ++i) {
    if (offset + sizeof(dm_target_spec) > limit)
      return Fail(ErrorCode::kInternal, "dm: table status is cut off");
    dm_target_spec spec{};
    std::memcpy(&spec, bytes + offset, sizeof(spec));
    targets.push_back(
        {spec.sector_start, spec.length,
         std::string(spec.target_type, ::strnlen(spec.target_type, sizeof(spec.target_type))),
         TextAt(bytes, offset + sizeof(dm_target_spec), limit)});
    offset = start + spec.next;
  }
  return targets;
}

Result<std::vector<DmListEntry>> DmRequest::List() const {
  std::vector<DmListEntry> entries;
  const char* bytes = reinterpret_cast<const char*>(buffer_.data());
  const size_t limit = buffer_.size() * sizeof(uint64_t);
  size_t offset = header().data_start;
  for (;;) {
    dm_name_list entry{};
    const size_t name_offset = offset + offsetof(dm_name_list, name);
    if (name_offset > limit) return Fail(ErrorCode::kInternal, "dm: list of devices is cut off");
    std::memcpy(&entry, bytes + offset, offsetof(dm_name_list, name));
    if (entry.dev == 0) return entries;
    entries.push_back({TextAt(bytes, name_offset, limit), DeviceNumber::FromDev(entry.dev)});
    if (entry.next == 0) return entries;
    offset += entry.next;
  }
}

}  // namespace dormouse::host
