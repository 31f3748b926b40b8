// Which pages of another process have diverged from what it mapped, by /proc/<pid>/pagemap
// (Documentation/admin-guide/mm/pagemap.rst).
//
// In a private mapping of a file, a page that was written is an anonymous copy: present or swapped,
// and not a file's page. KVM faults guest memory through the host's page tables, so what the guest
// wrote counts like what the VMM wrote. All others equal the file. In private anonymous memory, a
// page that was ever touched is present or swapped, and all others are zero.
// It is sound for zero pages, swap, KSM, page migration and transparent huge pages: each leaves the
// page present or swapped, and anonymous.
//
// Needs the right to trace the process (ptrace(2)). Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>

#include "node-agent/host/process.h"
#include "src/common/base/result.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::memory {

/// Of one 64-bit entry of pagemap. Pure.
[[nodiscard]] constexpr bool HasDiverged(uint64_t entry) {
  constexpr uint64_t kPresent = uint64_t{1} << 63;
  constexpr uint64_t kSwapped = uint64_t{1} << 62;
  constexpr uint64_t kFileOrShared = uint64_t{1} << 61;
  return (entry & (kPresent | kSwapped)) != 0 && (entry & kFileOrShared) == 0;
}

class Pagemap {
 public:
  /// kNotFound when the process has exited.
  static Result<Pagemap> Open(const host::Process& process);

  /// Called with an address and a length in bytes, both whole pages; a failure ends the scan.
  using Run = std::function<Result<>(uint64_t address, uint64_t length)>;
  /// Tells each longest run of diverged pages in [address, address + length), in order. The process
  /// must stand still. kUnavailable when it is gone.
  [[nodiscard]] Result<> Scan(uint64_t address, uint64_t length, const Run& run) const;

 private:
  explicit Pagemap(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace dormouse::memory
