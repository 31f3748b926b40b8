// The sizes that file systems state in their superblocks: ext4's
// Documentation/filesystems/ext4/super.rst, XFS's xfs_format.h, btrfs's uapi/linux/btrfs_tree.h.
#include <cstring>

#include "node-agent/disk/images.h"

namespace dormouse::disk {
namespace {

uint64_t Little(const std::string& bytes, size_t offset, size_t width) {
  uint64_t value = 0;
  for (size_t i = 0; i < width; ++i)
    value |= uint64_t{static_cast<unsigned char>(bytes[offset + i])} << (8 * i);
  return value;
}

uint64_t Big(const std::string& bytes, size_t offset, size_t width) {
  uint64_t value = 0;
  for (size_t i = 0; i < width; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[offset + i]);
  return value;
}

bool Has(const std::string& bytes, size_t offset, std::string_view wanted) {
  return bytes.size() >= offset + wanted.size() &&
         std::string_view(bytes).substr(offset, wanted.size()) == wanted;
}

std::optional<uint64_t> Product(uint64_t blocks, uint64_t block_bytes) {
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(blocks, block_bytes, &bytes)) return UINT64_MAX;
  return bytes;
}

}  // namespace

std::optional<uint64_t> FileSystemBytes(const std::string& head) {
  constexpr size_t kExtSuper = 1024;
  constexpr uint64_t kExtIncompat64Bit = 0x80;
  if (head.size() >= kExtSuper + 1024 && Little(head, kExtSuper + 56, 2) == 0xEF53) {
    uint64_t blocks = Little(head, kExtSuper + 4, 4);
    if ((Little(head, kExtSuper + 96, 4) & kExtIncompat64Bit) != 0)
      blocks |= Little(head, kExtSuper + 336, 4) << 32;
    const uint64_t log_block = Little(head, kExtSuper + 24, 4);
    if (log_block > 6) return std::nullopt;  // 64 KiB blocks are the largest: not ext after all
    return Product(blocks, uint64_t{1024} << log_block);
  }
  if (Has(head, 0, "XFSB") && head.size() >= 16) return Product(Big(head, 8, 8), Big(head, 4, 4));
  constexpr size_t kBtrfsSuper = 64 << 10;
  if (Has(head, kBtrfsSuper + 64, "_BHRfS_M") && head.size() >= kBtrfsSuper + 120) {
    return Little(head, kBtrfsSuper + 112, 8);
  }
  return std::nullopt;
}

}  // namespace dormouse::disk
