// Files that are mostly holes or shared extents: what stores, memory images and bases are made of.
//
// Thread-safe as far as the files differ.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::host {

/// open() with O_CLOEXEC; `flags` as of open(2), `mode` where O_CREAT is among them.
Result<UniqueFd> OpenFile(const std::string& path, int flags, unsigned mode = 0600);

/// What the file takes on disk: st_blocks * 512, shared extents included. Never the apparent size.
Result<uint64_t> AllocatedBytes(const std::string& path);
Result<uint64_t> SizeBytes(const std::string& path);

/// Makes `to`, of mode 0600, share the extents of `from` (FICLONE). `to` must not be there.
/// kUnsupported where the file system cannot, or they are on two.
Result<> Reflink(const std::string& from, const std::string& to);
/// The same result by copying data and leaving the holes; for where Reflink is kUnsupported.
Result<> CopySparse(const std::string& from, const std::string& to);
/// Reflink, or CopySparse where it cannot. True when extents are shared.
Result<bool> CloneFile(const std::string& from, const std::string& to);
/// CloneFile of open files, `to` being empty. Of a `from` that has more than `max_bytes` the copy
/// has more than that, too, and is not whole.
Result<bool> CloneContent(int from, int to, uint64_t max_bytes);

/// Reserves space for [offset, offset + length) without changing content or size. kNoSpace,
/// kUnsupported.
Result<> Allocate(int fd, uint64_t offset, uint64_t length);
/// The next extent with data at or after `offset`; nothing when only holes follow.
struct Extent {
  uint64_t offset = 0;
  uint64_t length = 0;
};
Result<std::optional<Extent>> NextData(int fd, uint64_t offset);
/// What of the file is no hole, and no space that is only set aside: two calls for each extent, and
/// nothing is read. All of its size where the file system cannot tell.
Result<uint64_t> DataBytes(const std::string& path);

/// Of the file system that holds `path`.
struct FileSystemSpace {
  uint64_t total_bytes = 0;
  uint64_t available_bytes = 0;  ///< to us; what root may use
};
Result<FileSystemSpace> SpaceOf(const std::string& path);

}  // namespace dormouse::host
