#include "tests/fakes/fake-cloud-hypervisor/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "src/common/base/unique_fd.h"
#include "src/common/base/units.h"

namespace dormouse::fake_vmm {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPagesAtOnce = 4096;
constexpr uint64_t kCommandLine = 0x20000;

bool IsZero(const uint8_t* page) {
  static const std::array<uint8_t, kPage> kZeros{};
  return std::memcmp(page, kZeros.data(), kPage) == 0;
}

tl::unexpected<Refusal> NoMemory(int errnum) {
  return Refuse({"Memory manager error", "Mmap backed guest memory", OsCause(errnum)});
}

}  // namespace

std::vector<MemoryRange> RangesOf(uint64_t bytes) {
  std::vector<MemoryRange> ranges = {{0, std::min(bytes, 3 * kGiB), 0}};
  if (bytes > 3 * kGiB) ranges.push_back({4 * kGiB, bytes - 3 * kGiB, 0});
  return ranges;
}

Outcome<std::unique_ptr<GuestMemory>> GuestMemory::Allocate(std::vector<MemoryRange> ranges) {
  std::unique_ptr<GuestMemory> memory(new GuestMemory);
  uint64_t total = 0;
  for (const MemoryRange& range : ranges) total += range.length;
  uint8_t* base = memory->Reserve(total);
  if (base == nullptr || ::mprotect(base, total, PROT_READ | PROT_WRITE) != 0)
    return NoMemory(errno);
  uint8_t* end = base + total;
  for (const MemoryRange& range : ranges) {
    end -= range.length;
    memory->ranges_.push_back(range);
    memory->bases_.push_back(end);
  }
  return memory;
}

Outcome<std::unique_ptr<GuestMemory>> GuestMemory::MapFile(std::vector<MemoryRange> ranges,
                                                           const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return NoMemory(errno);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return NoMemory(errno);
  std::unique_ptr<GuestMemory> memory(new GuestMemory);
  memory->mapped_ = true;
  for (const MemoryRange& range : ranges) {
    if (range.file_offset + range.length > static_cast<uint64_t>(info.st_size)) {
      return Refuse({"Memory manager error", "Mmap backed guest memory",
                     "The specified file offset and length is greater then file length"});
    }
    uint8_t* base = memory->Reserve(range.length);
    if (base == nullptr ||
        ::mmap(base, range.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED,
               file.get(), static_cast<off_t>(range.file_offset)) == MAP_FAILED) {
      return NoMemory(errno);
    }
    memory->ranges_.push_back(range);
    memory->bases_.push_back(base);
  }
  return memory;
}

GuestMemory::~GuestMemory() {
  for (const auto& [address, length] : reserved_) (void)::munmap(address, length);
}

uint8_t* GuestMemory::Reserve(uint64_t length) {
  void* whole = ::mmap(nullptr, length + 2 * kPage, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (whole == MAP_FAILED) return nullptr;
  reserved_.emplace_back(static_cast<uint8_t*>(whole), length + 2 * kPage);
  return static_cast<uint8_t*>(whole) + kPage;
}

uint64_t GuestMemory::bytes() const {
  uint64_t total = 0;
  for (const MemoryRange& range : ranges_) total += range.length;
  return total;
}

void GuestMemory::Touch(uint64_t bytes, uint64_t word) const {
  const uint64_t end = std::min(ranges_.front().length, bytes + kPage);
  for (uint64_t at = kPage; at < end; at += kPage) {
    const uint64_t value = word ^ at;
    std::memcpy(bases_.front() + at, &value, sizeof(value));
  }
}

void GuestMemory::WriteCommandLine(const std::string& text) const {
  if (kCommandLine + text.size() + 1 > ranges_.front().length) return;
  std::memcpy(bases_.front() + kCommandLine, text.c_str(), text.size() + 1);
}

Outcome<> GuestMemory::Write(const std::string& path) const {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!file) return Refuse({"Error creating memory snapshot file " + Quoted(path), OsCause(errno)});
  const auto failed = [] {
    return Refuse(
        {"Error writing dense memory snapshot region", "Guest memory error: " + OsCause(errno)});
  };
  if (::ftruncate(file.get(), static_cast<off_t>(bytes())) != 0) return failed();
  // Where RAM is anonymous, a page that was never touched is zero and need not be looked at (which
  // would make it present). Bits 63 and 62: present, swapped
  // (Documentation/admin-guide/mm/pagemap.rst).
  const UniqueFd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  uint64_t range_at = 0;
  for (size_t i = 0; i < ranges_.size(); ++i) {
    std::vector<uint64_t> entries(kPagesAtOnce);
    for (uint64_t at = 0; at < ranges_[i].length; at += kPagesAtOnce * kPage) {
      const uint64_t pages = std::min(kPagesAtOnce, (ranges_[i].length - at) / kPage);
      std::fill(entries.begin(), entries.end(), ~uint64_t{0});
      if (!mapped_ && pagemap) {
        const auto first = reinterpret_cast<uintptr_t>(bases_[i] + at) / kPage;
        (void)!::pread(pagemap.get(), entries.data(), pages * sizeof(uint64_t),
                       static_cast<off_t>(first * sizeof(uint64_t)));
      }
      for (uint64_t page = 0; page < pages; ++page) {
        if ((entries[page] >> 62) == 0) continue;
        const uint8_t* bytes_of_page = bases_[i] + at + page * kPage;
        if (IsZero(bytes_of_page)) continue;
        const auto where = static_cast<off_t>(range_at + at + page * kPage);
        if (::pwrite(file.get(), bytes_of_page, kPage, where) != static_cast<ssize_t>(kPage))
          return failed();
      }
    }
    range_at += ranges_[i].length;
  }
  return {};
}

Outcome<> GuestMemory::Fill(const std::string& path, const std::vector<MemoryRange>& ranges) const {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file)
    return Refuse({"Memory manager error", "Error opening the snapshot file", OsCause(errno)});
  uint64_t range_at = 0;
  for (const MemoryRange& range : ranges) {
    size_t i = 0;
    while (i < ranges_.size() && (ranges_[i].gpa != range.gpa || ranges_[i].length < range.length))
      ++i;
    if (i == ranges_.size())
      return Refuse({"Memory manager error", "Error reading from snapshot file"});
    for (uint64_t at = 0; at < range.length;) {
      // Holes are zero, and so is fresh RAM.
      const off_t data = ::lseek(file.get(), static_cast<off_t>(range_at + at), SEEK_DATA);
      if (data < 0 && errno == ENXIO) {
        struct stat info {};
        (void)::fstat(file.get(), &info);
        if (static_cast<uint64_t>(info.st_size) < range_at + range.length) {
          return Refuse({"Memory manager error", "Error reading from snapshot file",
                         "failed to fill whole buffer"});
        }
        break;
      }
      if (data > 0) at = std::max(at, static_cast<uint64_t>(data) - range_at);
      if (at >= range.length) break;
      const off_t hole = ::lseek(file.get(), static_cast<off_t>(range_at + at), SEEK_HOLE);
      const uint64_t end = std::min(range.length, static_cast<uint64_t>(hole) - range_at);
      const ssize_t got =
          ::pread(file.get(), bases_[i] + at, end - at, static_cast<off_t>(range_at + at));
      if (got <= 0) {
        return Refuse({"Memory manager error", "Error reading from snapshot file",
                       "failed to fill whole buffer"});
      }
      at += static_cast<uint64_t>(got);
    }
    range_at += range.length;
  }
  return {};
}

}  // namespace dormouse::fake_vmm
