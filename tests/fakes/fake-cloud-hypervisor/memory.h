// Guest RAM: real private mappings of the guest's size, touched as a guest would, so that what
// reads /proc/<pid>/{maps,pagemap,mem} finds what it would find of the real VMM. Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/fake-cloud-hypervisor/answer.h"

namespace dormouse::fake_vmm {

/// One range of RAM; two above 3 GiB, as on x86.
struct MemoryRange {
  uint64_t gpa = 0;
  uint64_t length = 0;
  uint64_t file_offset = 0;  ///< where it is in the file it is mapped from, if any
};

[[nodiscard]] std::vector<MemoryRange> RangesOf(uint64_t bytes);

class GuestMemory {
 public:
  /// Anonymous and untouched. Two ranges lie next to each other, the second below the first: one
  /// mapping, as the kernel mostly makes of the real VMM's.
  static Outcome<std::unique_ptr<GuestMemory>> Allocate(std::vector<MemoryRange> ranges);
  /// Mapped private from a file opened read-only: what is not written stays the file's.
  static Outcome<std::unique_ptr<GuestMemory>> MapFile(std::vector<MemoryRange> ranges,
                                                       const std::string& path);
  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  [[nodiscard]] const std::vector<MemoryRange>& ranges() const { return ranges_; }
  [[nodiscard]] uint64_t bytes() const;
  /// The first page of RAM, where the fake guest keeps what a snapshot must carry.
  [[nodiscard]] uint8_t* first_page() const { return bases_.front(); }
  /// Writes one word to each page of the first `bytes` after the first page.
  void Touch(uint64_t bytes, uint64_t word) const;

  /// To where the real VMM puts it (CMDLINE_START), with its NUL.
  void WriteCommandLine(const std::string& text) const;

  /// `path` (made with create_new) holds all ranges one after the other; zero pages as holes.
  [[nodiscard]] Outcome<> Write(const std::string& path) const;
  /// Reads `ranges` one after the other from `path` into RAM.
  [[nodiscard]] Outcome<> Fill(const std::string& path,
                               const std::vector<MemoryRange>& ranges) const;

 private:
  GuestMemory() = default;
  // A page of nothing on either side keeps the kernel from merging RAM with a neighbour in maps.
  uint8_t* Reserve(uint64_t length);

  std::vector<MemoryRange> ranges_;
  std::vector<uint8_t*> bases_;
  std::vector<std::pair<uint8_t*, uint64_t>> reserved_;  ///< address and length
  bool mapped_ = false;                                  ///< from a file
};

}  // namespace dormouse::fake_vmm
